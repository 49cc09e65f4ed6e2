"""The explorer of ablations, on twelve grey squares and vectors that are made up."""

import json

import numpy as np
import pytest
from PIL import Image

import imret.features.descriptor
from imret.ablation import Ablation
from imret.core import GroundTruth, SpecError, l2_normalize
from imret.datasets import RetrievalDataset
from imret.evaluation import judge
from imret.explore import AblationExplorer
from imret.explore.ablation import ablation_rows, ablation_state

AXES = {"dimension": [None, 3], "image_size": [64], "pooling": ["gem", "mac", "spoc"]}
TRUTH = {
    "easy": [[0, 1], [2, 3], [4, 5], [6, 7]],
    "hard": [[8], [9], [10], [11]],
    "junk": [[2], [], [0], []],
}


@pytest.fixture
def squares(tmp_path, monkeypatch):
    "12 images, 4 queries in 2 groups, one of them with a box; descriptors without a net."
    files = [tmp_path / f"{i}.png" for i in range(16)]
    for i, file in enumerate(files):
        Image.new("L", (20, 10), 10 * i).save(file)

    def extract(net, images, boxes=None, *size, **options):
        seeds = [[int(i.stem) % 12 // 2, len(net)] for i in images]
        rows = [np.random.default_rng(s).normal(size=6) for s in seeds]
        noise = np.random.default_rng([len(net), len(images)]).normal(size=(len(images), 6))
        return l2_normalize((np.array(rows) + noise).astype(np.float32))

    monkeypatch.setattr(imret.features.descriptor, "describe", extract)
    monkeypatch.setattr(imret.features.descriptor, "make_net", lambda spec: spec.net)
    boxes = [None, (2, 2, 12, 8), None, None]
    truth = GroundTruth(**TRUTH, groups=["a", "a", "b", "b"])
    return RetrievalDataset("squares", files[:12], files[12:], truth, boxes)


@pytest.fixture
def ablation(squares):
    out = Ablation(squares, AXES, {"pooling": "mac"})
    out.run(progress=False)
    return out


def test_every_number_is_the_tables(ablation):
    state = ablation_state(ablation, n=2, k=3, strip=5, size=16)
    axes = {axis["name"]: axis["values"] for axis in state["axes"]}
    for row in ablation.table.to_dict("records"):
        place = [axes[a].index(str(row[a])) for a in AXES]
        cell = state["cells"].index(place)
        view = state["views"][row["protocol"]][cell]
        assert (view["mAP"], view["low"]) == (f"{row['mAP']:.3f}", f"{row['low']:.3f}")
        if cell == state["baseline"]:
            assert view["difference"] is None and view["verdict"] == "baseline"
            continue
        assert view["difference"] == f"{row['difference']:+.3f}"
        decided = row["difference_low"] > 0 or row["difference_high"] < 0
        assert decided == (view["verdict"] in ("gain", "loss"))
    assert tuple(ablation.evaluations)[state["baseline"]] == ("none", 64, "mac")


def test_queries_and_lists_are_pythons_own(ablation):
    state = ablation_state(ablation, n=1, k=3, strip=5, size=16)
    for protocol, views in state["views"].items():
        for c, (cell, view) in enumerate(zip(ablation.evaluations, views, strict=True)):
            rows = ablation.changed(cell, protocol, n=1)
            assert [m[0] for m in view["moved"]] == rows["query"].tolist()
            assert [m[3] for m in view["moved"]] == [f"{ap:.3f}" for ap in rows["cell"]]
            assert sum(view["counts"]) == 4
            for q in rows["query"]:
                for n in (c, state["baseline"]):
                    ranking = ablation.evaluations[list(ablation.evaluations)[n]][protocol].ranking
                    places, kinds = state["lists"][protocol][f"{n}/{q}"]
                    names = [state["images"][i]["name"].split("/")[1] for i in places]
                    assert names == [f"{i}.png" for i in ranking.ids[q, :3]]
                    want = judge(ranking, ablation.dataset.truth, protocol)[q, :5]
                    assert kinds == "".join("NPJ"[t] for t in want)
    assert len(state["images"]) == len({i["name"] for i in state["images"]})  # each once


def test_rows_in_the_order_of_the_page(ablation):
    explorer = AblationExplorer(ablation, protocol="hard", by="dimension")
    shown = explorer.rows
    assert shown["pooling"].tolist() == ["gem", "gem", "mac", "mac", "spoc", "spoc"]
    assert shown["dimension"].tolist() == ["none", 3] * 3
    assert (shown["protocol"] == "hard").all()
    best = shown.loc[shown["mAP"].idxmax(), list(AXES)]
    assert explorer.cells[explorer.cell] == tuple(best)  # open at first
    explorer.by, explorer.shown = "", [[1], [0], [0, 2]]
    assert explorer.rows["mAP"].is_monotonic_decreasing
    assert sorted(explorer.rows["pooling"]) == ["gem", "spoc"]
    assert explorer.rows["dimension"].tolist() == [3, 3]


def test_what_may_be_chosen_first(ablation):
    explorer = AblationExplorer(ablation, {"pooling": "spoc"}, "medium", by="")
    assert explorer.cells[explorer.cell] == ("none", 64, "spoc") and explorer.by == ""
    assert AblationExplorer(ablation).by == "pooling"
    for given, said in (
        ({"protocol": "harder"}, "easy, medium, hard were"),
        ({"by": "image_size"}, "there is dimension, pooling"),
        ({"cell": {"pooling": "rmac"}}, "not in the grid"),
    ):
        with pytest.raises(SpecError, match=said):
            AblationExplorer(ablation, **given)


def test_what_is_no_finished_ablation(ablation, squares):
    with pytest.raises(SpecError, match="not a DataFrame"):
        AblationExplorer(ablation.table)
    with pytest.raises(SpecError, match="call run first"):
        AblationExplorer(Ablation(squares, AXES))
    whole = ablation.table
    ablation.table = whole.drop(columns=["p", "low"])
    with pytest.raises(SpecError, match="lacks low, p"):
        ablation_rows(ablation)
    for other in (whole[1:], whole.assign(pooling="rmac"), whole.assign(protocol="old")):
        ablation.table = other
        with pytest.raises(SpecError, match="of different runs"):
            ablation_rows(ablation)


def test_one_cell_and_one_group(squares):
    truth = GroundTruth(**TRUTH, groups=["a"] * 4)
    alone = RetrievalDataset("alone", squares.images, squares.queries, truth, squares.boxes)
    one = Ablation(alone, {"pooling": ["gem"]}, protocols=["easy"])
    one.run(progress=False)
    explorer = AblationExplorer(one)
    assert (explorer.by, explorer.cell) == ("", 0)
    assert explorer.state["views"]["easy"][0]["low"] is None  # no interval from one group
    two = Ablation(alone, {"pooling": ["gem", "mac"]}, protocols=["easy"])
    two.run(progress=False)
    [_, view] = AblationExplorer(two).state["views"]["easy"]
    assert view["verdict"] == "undecided" and view["difference_low"] is None


def test_pictures(ablation, squares):
    from imret.explore.ablation import _query_thumbnail

    boxed = np.asarray(_query_thumbnail(squares, 1, 40), int)
    yellow = (boxed[..., 0] - boxed[..., 2]) > 80
    assert boxed.shape == (10, 20, 3) and yellow.any() and not yellow[:2].any()
    assert yellow[2, 2:12].all() and yellow[2:8, 2].all()
    squares.queries[1].write_bytes(b"broken")
    grey = np.asarray(_query_thumbnail(squares, 1, 40))
    assert (grey == 0x99).all()


def test_the_page_is_the_same_at_each_run(ablation):
    first, again = AblationExplorer(ablation), AblationExplorer(ablation)
    assert first.static() == again.static()
    assert json.loads(json.dumps(first.state)) == first.state
    easy = ablation.table[ablation.table["protocol"] == "easy"]
    assert all(f"{value:.3f}" in first.fallback() for value in easy["mAP"])
