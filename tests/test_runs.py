"""Saved runs: what comes back, what is damaged or foreign, and which runs can be compared."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imret.cli import main
from imret.core import GroundTruth, Ranking, StoreError, TruthError
from imret.evaluation import Results, compare, compare_results, evaluate, runs

OLD = Path(__file__).with_name("eval_0_1_0.json")  # `imret eval photos --protocol hard --json`
N, Q = 30, 12


def truth_of(graded=True, **more):
    "Two queries a group; the last query has no positive at all."
    easy = [[g, g + 1] for g in range(Q - 1)] + [[]]
    hard = [[g + 5] for g in range(Q - 1)] + [[]]
    junk = [[29]] * Q
    if graded:
        return GroundTruth(easy, hard, junk, **more)
    return GroundTruth(positive=easy, junk=junk, **more)


def make(seed=0, truth=None, root="sets/a", dataset="a set", name=None, rankings=1, **more):
    "A run of random scores; `rankings`: how many different ones its protocols have."
    truth = truth or truth_of(groups=[f"g{q // 2}" for q in range(Q)])
    rng = np.random.default_rng(seed)
    lists = [Ranking.from_scores(rng.normal(size=(Q, N)).astype(np.float32)) for _ in range(3)]
    found = {
        p: evaluate(lists[i % rankings], truth, p, metrics=["cmc@1"])
        for i, p in enumerate(truth.protocols)
    }
    queries = [f"{root}/query/{q}.jpg" for q in range(Q)]
    database = [f"{root}/database/{n % 3}/{n}.jpg" for n in range(N)]
    boxes = [None if q % 2 else (q, 0.1, q + 7.3, 9) for q in range(Q)]
    return Results(found, dataset, name, queries, database, boxes, **more)


def same(x, y, whole):
    "Two runs hold the same."
    assert list(x) == list(y) and (x.dataset, x.retriever) == (y.dataset, y.retriever)
    assert x.about == y.about and x.truth_marks == y.truth_marks and str(x) == str(y)
    assert x.query_paths == y.query_paths and x.boxes == y.boxes
    for p in x:
        pd.testing.assert_frame_equal(x[p].per_query, y[p].per_query)
        assert str(x[p].summary) == str(y[p].summary)  # NaN is not itself
    if not whole:
        return
    assert x.database_paths == y.database_paths
    for p in x:
        for a, b in ((x[p].ranking, y[p].ranking), (x[p].truth, y[p].truth)):
            assert (a is None) == (b is None)
        if x[p].ranking is not None:
            assert np.array_equal(x[p].ranking.ids, y[p].ranking.ids)
            assert np.array_equal(x[p].ranking.scores, y[p].ranking.scores)
        assert runs.truth_marks(x[p].truth) == runs.truth_marks(y[p].truth)
        assert np.array_equal(x[p].truth.groups, y[p].truth.groups)
        assert x[p].truth.graded == y[p].truth.graded


RUNS = {
    "graded": lambda: make(),
    "a ranking each": lambda: make(rankings=3),
    "not graded": lambda: make(truth=truth_of(False)),
    "one group": lambda: make(truth=truth_of(groups=["all"] * Q)),
    "absolute": lambda: make(root=str(Path("/nowhere/a set").absolute())),
    "named": lambda: make(name="net-gem", about={"command": "imret eval", "made": [1, None]}),
    "for people": lambda: make(about={"source": "net at 64 px", "versions": {"imret": "9"}}),
    "no paths": lambda: Results(make(), "a set"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_round_trip(tmp_path, kind):
    run = RUNS[kind]()
    run.save(tmp_path / "new" / "run")
    run.to_json(tmp_path / "run.json")
    same(run, Results.load(tmp_path / "new" / "run"), whole=True)
    same(run, Results.load(tmp_path / "new" / "run" / "results.json"), whole=True)
    same(run, Results.load(tmp_path / "run.json"), whole=False)
    assert (tmp_path / "run.json").read_text() == run.to_json()
    again = Results.load(tmp_path / "new" / "run")
    again.save(tmp_path / "again")
    for file in (tmp_path / "new" / "run").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_protocols_share_a_file_where_they_share_a_ranking(tmp_path):
    make().save(tmp_path / "one")
    make(rankings=2).save(tmp_path / "two")
    rankings = [sorted(p.name for p in tmp_path.glob(f"{n}/rank*")) for n in ("one", "two")]
    assert rankings == [["ranking.npz"], ["ranking.npz", "ranking_medium.npz"]]
    two = Results.load(tmp_path / "two")
    assert two["easy"].ranking is two["hard"].ranking is not two["medium"].ranking


def test_scores_without_a_ranking(tmp_path):
    truth = truth_of()
    run = Results({"hard": evaluate(np.random.rand(Q, N), truth, "hard")}, "scores")
    run.save(tmp_path / "run")
    same(run, Results.load(tmp_path / "run"), whole=True)
    assert not list(tmp_path.glob("run/ranking*"))


def test_paths_absolute_and_relative_in_one_run(tmp_path):
    found = make()
    queries = ["/somewhere/x.jpg", *[f"q/{n}.jpg" for n in range(Q - 1)]]
    run = Results(found, "mixed", None, queries, [f"../d/{n}.jpg" for n in range(N)])
    run.save(tmp_path / "run")
    same(run, Results.load(tmp_path / "run"), whole=True)


# --- what was damaged


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make().save(folder / "run")
    make().to_json(folder / "run.json")
    return folder


FILES = "database.csv", "easy.csv", "medium.csv", "hard.csv", "ranking.npz", "truth.npz"


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_checked(saved, tmp_path, name):
    folder = shutil.copytree(saved / "run", tmp_path / "run")
    assert {p.name for p in folder.iterdir()} == {*FILES, "results.json"}
    content = (folder / name).read_bytes()
    for damaged in (content[:-1], content + b"\n", b""):
        (folder / name).write_bytes(damaged)
        with pytest.raises(StoreError, match=f"{name} was changed after it was written"):
            Results.load(folder)
    (folder / name).unlink()
    with pytest.raises(StoreError, match=f"incomplete: {name} is missing"):
        Results.load(folder)


@pytest.mark.parametrize("where", ["run.json", "run/results.json"])
@pytest.mark.parametrize("value", ["absent", None, 3, "text", [1], {"easy": 3}])
def test_fields_that_are_absent_or_wrong(saved, tmp_path, where, value):
    "Either it is read all the same, as by a field that 0.1.0 had not, or it is one error."
    shutil.copytree(saved, tmp_path / "copy")
    file = tmp_path / "copy" / where
    data = json.loads(file.read_text())
    for key in data:
        changed = {k: v for k, v in data.items() if k != key}
        file.write_text(json.dumps(changed if value == "absent" else {**changed, key: value}))
        try:
            assert isinstance(Results.load(file), Results)
        except StoreError as e:
            assert file.name in str(e) and "\n" not in str(e) or "run" in str(e), key
            assert key not in ("about", "root") or value != "absent"


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[1, 2]", "holds no results"),
        ("{}", "holds no results"),
        ('{"summaries": {}}', "is damaged"),
        ('{"summaries": {}, "format": 2}', "format 2, from a newer version of imret"),
        ('{"summaries": {}, "format": "new"}', "is damaged"),
    ],
)
def test_other_files(tmp_path, text, said):
    for file in (tmp_path / "x.json", tmp_path / "results.json"):
        file.write_text(text)
        with pytest.raises(StoreError, match=said):
            Results.load(file if file.name == "x.json" else tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\x00\x93NUMPY")
    with pytest.raises(StoreError, match="is no JSON"):
        Results.load(tmp_path / "x.json")


# --- writing whole


def test_results_are_replaced_and_nothing_else(tmp_path):
    place = tmp_path / "run"
    make(0).save(place)
    make(1, truth=truth_of(False)).save(place)
    assert list(Results.load(place)) == ["all"] and not (place / "easy.csv").exists()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="run holds mine.txt, which is no part of results"):
        make(0).save(place)
    assert list(Results.load(place)) == ["all"]
    with pytest.raises(StoreError, match="mine.txt is a file"):
        make(0).save(place / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("step", ["runs.save_truth", "saved.os.replace"])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, step):
    place = tmp_path / "run"
    make(0).save(place)
    replace = os.replace

    def fail(*args):
        if step == "saved.os.replace" and Path(args[0]).name != "new":
            return replace(*args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"imret.evaluation.{step}", fail)
    with pytest.raises(OSError, match="No space left"):
        make(1).save(place)
    monkeypatch.undo()
    same(make(0), Results.load(place), whole=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_parts_that_do_not_fit():
    run = make()
    with pytest.raises(TruthError, match="boxes has 2 entries for 12 queries under easy"):
        Results(run, "a set", boxes=[None, (1, 2, 3, 4)])
    with pytest.raises(TruthError, match="points past the database of 20"):
        Results(run, "a set", database_paths=run.database_paths[:20])


# --- version 0.1.0


def test_file_of_0_1_0():
    old, run = json.loads(OLD.read_text()), Results.load(OLD)
    assert (run.dataset, run.label) == (old["dataset"], old["source"])
    assert run["hard"].summary == old["summaries"]["hard"] and run.query_paths is None
    assert run["hard"].per_query["ap"].tolist() == [row["ap"] for row in old["queries"]["hard"]]
    assert str(run["hard"]).startswith("mAP 0.591 [0.487, 0.690]  mP@1 0.811")
    new = json.loads(run.to_json())
    assert {k: new[k] for k in old} == old


def test_file_of_0_1_0_against_all_digits():
    "0.1.0 wrote ten digits: that is neither a win nor a loss."
    run = Results.load(OLD)
    noise = np.random.default_rng(0).uniform(-5e-11, 5e-11, 37)
    table = run["hard"].per_query.assign(ap=lambda t: t["ap"] + noise)
    exact = Results({"hard": type(run["hard"])(table, run["hard"].summary)}, run.dataset)
    for pair in ([run, exact], [exact, run]):
        s = compare_results(pair).comparisons["B", "hard"].summary
        assert (s["difference"], s["p"], s["wins"], s["ties"], s["losses"]) == (0, 1, 0, 37, 0)


# --- comparing


def test_each_against_the_first():
    three = {name: make(seed) for seed, name in enumerate(("one", "two", "three"))}
    found = compare_results(three, seed=3, margin=0.05)
    assert list(found.table["run"]) == ["one", "two", "three"] * 3
    for name in ("two", "three"):
        for p in ("easy", "medium", "hard"):
            by_hand = compare(three[name][p], three["one"][p], seed=3, margin=0.05)
            assert found.comparisons[name, p].summary == by_hand.summary
            row = found.table.query("run == @name and protocol == @p").iloc[0]
            assert row["mAP"] == by_hand.summary["a"] and row["verdict"] == by_hand.verdict
    moved = found.moved(2)
    assert len(moved) == 2 * 3 * 2
    worst = moved.iloc[0]
    assert str(worst["path"]) == f"sets/a/query/{worst['query']}.jpg"
    assert worst["after"] - worst["before"] == pytest.approx(worst["difference"])
    assert f"query {worst['query']}  {worst['path']}" in found.moved_text(2)
    assert "2 runs were tried against one" in str(found)


def test_another_metric():
    table = compare_results([make(0), make(1)], ["hard"], metric="p@5").table
    assert "mP@5" in table and len(table) == 2


def test_only_shared_protocols():
    run = make(1)
    some = Results({p: run[p] for p in ("hard", "easy")}, run.dataset)
    assert compare_results([make(0), some]).protocols == ["easy", "hard"]
    with pytest.raises(TruthError, match="B was not evaluated under medium"):
        compare_results([make(0), some], ["medium"])


def test_a_set_that_was_moved_is_the_same_set(tmp_path):
    a, b = make(0), make(1, root=str(tmp_path))
    b.to_json(tmp_path / "b.json")
    for other in (b, Results.load(tmp_path / "b.json")):
        assert len(compare_results([a, other]).table) == 6


def other_truth(kind):
    t = truth_of(groups=[f"g{q // 2}" for q in range(Q)])
    if kind == "junk":
        junk = [[28], [28], *t.junk[2:]]
        return GroundTruth(t.easy, t.hard, junk, groups=[f"g{q // 2}" for q in range(Q)])
    return truth_of(groups=[f"g{q // 3}" for q in range(Q)])


REFUSED = {
    "A is of dataset a set, B of other": lambda: make(1, dataset="other"),
    r"the image of 3 of 12 queries \(queries 0, 1, 2\)": lambda: named(slice(0, 3)),
    r"the image of 12 of 12 queries \(queries 0, 1, 2, 3, 4, …\)": lambda: named(slice(0, Q)),
    r"the box of 6 of 12 queries \(queries 0, 2, 4, 6, 8, …\)": lambda: boxed(),
    r"the truth of 2 of 12 queries \(queries 0, 1\)": lambda: make(1, truth=other_truth("junk")),
    r"the group, easy, of 9 of 12 queries \(queries 2, ": lambda: make(1, truth=other_truth("g")),
    "their queries: A has 12, B 37": lambda: renamed(),
}


def named(some):
    run = make(1)
    names = list(run.query_paths)
    names[some] = [p.with_suffix(".png") for p in names[some]]
    return Results(run, run.dataset, None, names, run.database_paths, run.boxes)


def boxed():
    run = make(1)
    return Results(run, run.dataset, None, run.query_paths, run.database_paths)


def renamed():
    run = Results.load(OLD)
    run.dataset = "a set"
    return run


@pytest.mark.parametrize("said", REFUSED)
def test_refused(tmp_path, said):
    other = REFUSED[said]()
    other.to_json(tmp_path / "other.json")
    for run in (other, Results.load(tmp_path / "other.json")):
        with pytest.raises(TruthError, match=said):
            compare_results([make(0), run])


def test_judged_in_another_way():
    a, b = make(0), make(1)
    found = {"hard": evaluate(b.ranking, b.truth, "hard", definition="rectangular")}
    with pytest.raises(TruthError, match="a is B, b is A: a has definition 'rectangular'"):
        compare_results([a, Results(found, a.dataset)])


# --- the commands


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    "A tiny benchmark, and descriptors of it."
    root = tmp_path_factory.mktemp("measured")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        for i in range(4):
            place = root / "set" / ("database" if i else "query") / name
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    for seed in (1, 2):
        x = np.random.default_rng(seed).normal(size=(12, 8))
        np.save(root / f"{seed}.npy", x.astype(np.float32))
    return root


def imret(capsys, *args) -> tuple[int, str, str]:
    code = main([str(a) for a in args])
    return code, *capsys.readouterr()


def test_eval_writes_and_compare_reads(measured, tmp_path, capsys):
    for seed in (1, 2):
        features = ("--features", measured / f"{seed}.npy")
        for _ in range(2):  # the second time over the first
            where = ("--out", tmp_path / f"{seed}", "--json", tmp_path / f"{seed}.json")
            code, printed, _ = imret(capsys, "eval", measured / "set", *features, *where)
        assert code == 0 and printed == f"{Results.load(tmp_path / str(seed))}\n"
    same(Results.load(tmp_path / "1"), Results.load(tmp_path / "1.json"), whole=False)
    pairs = [[tmp_path / "1", tmp_path / "2"], [tmp_path / "1.json", tmp_path / "2"]]
    texts = [imret(capsys, "compare", *pair)[1] for pair in pairs]
    assert texts[0].splitlines()[3:6][1:] != [] and "set, 3 queries in 3 groups" in texts[0]
    digits = [[line.split()[2:] for line in text.splitlines()[3:6]] for text in texts]
    assert digits[0] == digits[1]
    assert "set/query/" in texts[0]
    table = tmp_path / "out" / "table.csv"
    code, printed, _ = imret(capsys, "compare", *pairs[0], "--out", table, "--moved", 0)
    assert code == 0 and len(pd.read_csv(table)) == 2 and "query/" not in printed


def test_a_folder_with_other_files_is_told_before_work(measured, capsys, monkeypatch):
    monkeypatch.setattr("imret.datasets.load_benchmark", None)
    code, printed, error = imret(capsys, "eval", measured / "set", "--out", measured)
    assert code == 2 and not printed and "is no part of results" in error
    assert error.count("\n") == 1


def test_compare_says_what_is_wrong_in_one_line(saved, measured, capsys):
    mistakes = {
        "holds no results": (saved / "run", measured),
        "does not exist": (saved / "nowhere", saved / "run"),
        "of dataset": (saved / "run", OLD),
        "no metric 'recall'": (saved / "run", saved / "run.json", "--metric", "recall"),
        "not evaluated under all": (saved / "run", saved / "run.json", "--protocol", "all"),
        "two runs are needed": (saved / "run", saved / "run"),
        "margin is not negative": (saved / "run", saved / "run.json", "--margin", "-1"),
    }
    for said, args in mistakes.items():
        code, printed, error = imret(capsys, "compare", *args)
        assert code == 2 and not printed and said in error, error
        assert error.startswith("imret: ") and error.count("\n") == 1, error


def test_compare_loads_no_net(saved):
    code = (
        "import sys\nfrom imret.cli import main\n"
        f"assert main(['compare', {str(saved / 'run')!r}, {str(saved / 'run.json')!r}]) == 0\n"
        "assert not {'torch', 'timm', 'faiss', 'cv2'} & {*sys.modules}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
