"""Every metric against the library or the slow loop that defines it, and what can go wrong."""

import json
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torchmetrics.functional import retrieval as torchmetrics

from imret.core import GroundTruth, Ranking, TruthError
from imret.evaluation import (
    DEFINITIONS,
    METRICS,
    Places,
    TiedPlaces,
    average_precision,
    classic_truth,
    count_above,
    equal_error_rate,
    evaluate,
    evaluate_hashing,
    expected_precision,
    global_average_precision,
    measure,
    micro_precision,
    pair_auc,
    places_precision,
    query_places,
    query_table,
    recall_at_precision,
    results_table,
    revisited_precision,
)

CLOSE = {"abs": 1e-9}
ENDS = ("pessimistic", "optimistic")
lists = st.lists(st.booleans(), min_size=1, max_size=30)


# --- one list


def landmarks_v2(hits, n, k=100):
    "mAP@100 of Google Landmarks v2 for one query, place by place."
    found, total = 0, 0.0
    for i, hit in enumerate(hits[:k]):
        if hit:
            found += 1
            total += found / (i + 1)
    return total / min(n, k)


def voc(hits, n, levels=None):
    "Interpolated AP of PASCAL VOC: the greatest precision at a recall of at least r."
    found = np.cumsum(hits)
    recall, precision = found / n, found / np.arange(1, len(hits) + 1)
    if levels is None:
        levels = np.arange(1, n + 1) / n
    return np.mean([precision[recall >= r - 1e-12].max(initial=0) for r in levels])


@settings(deadline=None)
@given(lists, st.integers(0, 5), st.integers(1, 35))
def test_definitions_against_loops(hits, missed, k):
    hits = np.array(hits)
    n = int(hits.sum()) + missed
    if n == 0:
        return
    top = hits[:k]
    cut = average_precision(hits, n, f"cut@{k}")
    assert cut == pytest.approx(landmarks_v2(hits, n, k), **CLOSE)
    assert average_precision(hits, n, "interpolated") == pytest.approx(voc(hits, n), **CLOSE)
    eleven = voc(hits, n, np.arange(11) / 10)
    assert average_precision(hits, n, "eleven_point") == pytest.approx(eleven, **CLOSE)
    found = average_precision_score(top, -np.arange(len(top))) if top.any() else 0.0
    assert average_precision(hits, n, f"found@{k}") == pytest.approx(found, **CLOSE)
    # ILIAS: scikit-learn's AP of the top k, times the share that was found of what could be
    ilias = found * top.sum() / min(k, n)
    assert cut == pytest.approx(ilias, **CLOSE)
    places = Places.from_hits(hits, n)
    assert measure(places, f"revisited_precision@{k}") == revisited_precision(hits, k)
    assert measure(places, f"precision@{k}") == top.sum() / k
    assert measure(places, f"first_rank@{k}") == (np.argmax(top) + 1 if top.any() else k + 1)
    half = average_precision(hits, n, f"trapezoid@{k}") * n / max(1, top.sum())
    assert average_precision(hits, n, f"trapezoid_found@{k}") == pytest.approx(half, **CLOSE)


@settings(deadline=None)
@given(lists, st.integers(1, 30))
def test_against_torchmetrics(hits, k):
    "That library computes in float32."
    n, k = sum(hits), min(k, len(hits))
    target, scores = torch.tensor(hits), torch.arange(len(hits), 0, -1).float()
    places = Places.from_hits(hits, n)
    theirs = {
        f"found_ap@{k}": torchmetrics.retrieval_average_precision(scores, target, top_k=k),
        f"precision@{k}": torchmetrics.retrieval_precision(scores, target, top_k=k),
        f"recall@{k}": torchmetrics.retrieval_recall(scores, target, top_k=k),
        f"cmc@{k}": torchmetrics.retrieval_hit_rate(scores, target, top_k=k),
        f"reciprocal_rank@{k}": torchmetrics.retrieval_reciprocal_rank(scores, target, top_k=k),
        "r_precision": torchmetrics.retrieval_r_precision(scores, target),
    }
    for name, value in theirs.items():
        if n:
            assert measure(places, name) == pytest.approx(float(value), abs=1e-6), name
        else:
            assert np.isnan(measure(places, name))


@pytest.mark.parametrize("itself", [True, False])
def test_against_pytorch_metric_learning(itself):
    "Class 9 has one image: with itself left out, its query has no answer and is skipped."
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 5, 40)
    labels[-1] = 9
    y, other = (x, labels) if itself else (rng.normal(size=(30, 8)).astype(np.float32), labels[:30])
    metrics = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    metrics += ("mean_average_precision", "mean_reciprocal_rank")
    calculator = AccuracyCalculator(metrics, k=len(x) - itself, device=torch.device("cpu"))
    theirs = calculator.get_accuracy(
        *(torch.tensor(o) for o in (y, other, x, labels)), ref_includes_query=itself
    )
    truth = GroundTruth.from_labels(other, labels, np.arange(len(x)) if itself else None)
    scores = -((y[:, None].astype(float) - x) ** 2).sum(axis=2)
    names = ["precision@1", "r_precision", "map@r", "rectangular_ap", "reciprocal_rank"]
    ours = evaluate(scores, truth, metrics=names).summary
    assert ours["n_empty"] == (1 if itself else 0)
    for name, metric in zip(names, metrics, strict=True):
        close = 1e-6 if name == "reciprocal_rank" else 1e-9  # theirs is float32 there
        assert ours[name] == pytest.approx(theirs[metric], abs=close), name


def test_every_metric_lies_between_its_ends():
    perfect, worst = Places(np.arange(4), 4, 20), Places(np.array([], int), 4, 20)
    for name, metric in METRICS.items():
        full = name if metric.page == "none" else f"{name}@4"
        if name == "first_rank":
            assert (measure(perfect, full), measure(worst, full)) == (1, 5)
        else:
            assert (measure(perfect, full), measure(worst, full)) == pytest.approx((1, 0)), name


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_distractor_never_helps(definition):
    rng = np.random.default_rng(1)
    name = definition + "@7" * (definition == "cut")
    for _ in range(200):
        hits = rng.random(15) < 0.4
        place = rng.integers(16)
        more = np.insert(hits, place, False)
        assert average_precision(more, 12, name) <= average_precision(hits, 12, name) + 1e-12


@pytest.mark.parametrize("name", ["cut@x", "cut@-1", "cut@1.5", "trapezoid@", "Trapezoid", ""])
def test_wrong_definitions(name):
    with pytest.raises(TruthError):
        places_precision([0], 1, name)


# --- ties


@st.composite
def tied(draw, most=7):
    "Few images with fewer scores; a share of them positive, a share junk."
    n = draw(st.integers(1, most))
    scores = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    kinds = draw(st.lists(st.sampled_from("ppjn"), min_size=n, max_size=n))
    positives = [i for i in range(n) if kinds[i] == "p"]
    junk = [i for i in range(n) if kinds[i] == "j"]
    return np.array(scores, float), positives, junk


def orders(scores, positives, junk):
    "Hits under every order of the database, junk taken out."
    kept = [i for i in range(len(scores)) if i not in junk]
    for order in permutations(kept):
        order = np.array(order, int)
        yield np.isin(order[np.argsort(-scores[order], kind="stable")], positives)


@settings(deadline=None, max_examples=60)
@given(tied(6), st.integers(1, 7))
def test_expected_is_the_mean_over_all_orders(case, k):
    places, n = TiedPlaces.from_scores(*case), len(case[1])
    if not n:
        assert np.isnan(expected_precision(places))
        return
    every = list(orders(*case))
    names = ["trapezoid", "rectangular", "found", "trapezoid_found"]
    for name in [*names, *(f"{o}@{k}" for o in [*names, "cut"])]:
        values = [average_precision(hits, n, name) for hits in every]
        assert expected_precision(places, name) == pytest.approx(np.mean(values), **CLOSE), name
        if not name.startswith(("found@", "trapezoid_found@")):
            ends = [places_precision(places.in_order(o).found, n, name) for o in ENDS]
            assert ends == pytest.approx([min(values), max(values)], **CLOSE), name


@settings(deadline=None)
@given(tied(12), st.integers(1, 3))
def test_counting_equals_sorting(case, few):
    scores, positives, junk = case
    truth = GroundTruth(positive=[positives], junk=[junk])
    sorted_, counted = (
        next(query_places(o, truth)) for o in (Ranking.from_scores(scores[None]), scores[None])
    )
    assert sorted_[0].found.tolist() == counted[0].found.tolist()
    assert sorted_[0].n_results == counted[0].n_results and sorted_[1:] == counted[1:]
    listed = next(query_places(Ranking.from_scores(scores[None]), truth, ties="expected"))[0]
    for name in ("start", "size", "hits"):
        assert getattr(listed, name).tolist() == getattr(counted[0], name).tolist()


def test_counting_many_values():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=200_000).astype(np.float32).round(3)
    values = np.unique(scores)[::7]
    greater, at_least = count_above(scores, values)
    order = np.sort(scores)
    assert (greater == len(order) - np.searchsorted(order, values, "right")).all()
    assert (at_least == len(order) - np.searchsorted(order, values, "left")).all()


def test_the_order_of_the_database_has_no_part():
    "A naive sort fails here, and so does the order of the database itself."
    rng = np.random.default_rng(0)
    distances, labels = rng.integers(0, 5, (6, 50)), rng.integers(0, 3, 50)
    queries = [0, 0, 1, 1, 2, 2]
    values, in_order = [], []
    for _ in range(5):
        p = rng.permutation(50)
        truth = GroundTruth.from_labels(queries, labels[p])
        for k in (None, 10):
            values.append(evaluate_hashing(distances[:, p], truth, k=k).summary["mAP"])
        in_order.append(evaluate(-distances[:, p], truth).summary["mAP"])
    assert np.ptp(values[::2]) < 1e-12 and np.ptp(values[1::2]) < 1e-12
    assert np.ptp(in_order) > 1e-3


def test_infinite_scores_are_scores():
    scores = np.array([[-np.inf, 1, -np.inf, np.inf]])
    truth = GroundTruth(positive=[[0, 3]])
    assert next(query_places(scores, truth))[0].found.tolist() == [0, 2]
    lowest = GroundTruth(positive=[[1, 3]])
    assert next(query_places(scores, lowest))[1:] == (1, 3)


def test_half_precision_ties():
    "What bfloat16 cannot tell apart ties, and is judged as a tie; not as torch happened to sort."
    scores = torch.tensor([[0.5001, 0.5002, 0.5003, 0.1]])
    truth = GroundTruth(positive=[[2]])
    assert evaluate(scores, truth).summary["mAP"] == 1
    half = evaluate(scores.bfloat16(), truth, definition="rectangular", ties="expected").summary
    assert half["mAP"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert (half["mAP_pessimistic"], half["mAP_optimistic"]) == pytest.approx((1 / 3, 1))


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.int64, bool, np.float16, np.float32, np.float64]
)
def test_number_types(dtype):
    scores = np.array([[0, 3, 2, 1], [1, 0, 1, 0]]).astype(dtype)
    truth = GroundTruth(positive=[[1], [2]])
    same = evaluate(np.asarray(scores, float), truth).per_query
    pd.testing.assert_frame_equal(evaluate(scores, truth).per_query, same)


# --- what is given


def case(queries=7, images=30, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(queries, images)).round(1)
    sizes = rng.integers(1, 5, (queries, 3))
    drawn = [np.split(rng.permutation(images)[: s.sum()], np.cumsum(s)[:-1]) for s in sizes]
    easy, hard, junk = zip(*drawn, strict=True)
    return scores, GroundTruth(easy=easy, hard=hard, junk=junk)


@pytest.mark.parametrize("ties", ["database", "expected", "optimistic", "pessimistic"])
@pytest.mark.parametrize("protocol", ["easy", "medium", "hard"])
def test_lists_matrices_and_streams_agree(protocol, ties):
    scores, truth = case()
    ranking = Ranking.from_scores(scores)
    tables = [
        query_table(given, truth, protocol, ties=ties, metrics=["found_ap@5"])
        for given in (
            ranking,
            scores,
            torch.tensor(scores),
            (scores[i : i + 3] for i in range(0, 7, 3)),
            iter([scores[:2], ranking[2:5], torch.tensor(scores[5:])]),
            [scores],
        )
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def bad_inputs():
    scores, truth = case()
    expected = {"ties": "expected"}
    nan, listed = scores.copy(), Ranking.from_scores(scores)
    nan[3, 4] = np.nan
    listed.scores[2, 1] = np.nan
    rising = Ranking([[0, 1]] * 7, [[0.1, 0.9]] * 7)
    return {
        "query 3: the score of database image 4 is NaN": (nan, {}),
        "query 2: its score at place 1 is NaN": (listed, {}),
        "query 0: scores that rise along a list": (rising, expected),
        "ended after 3 of 7": (iter([scores[:3]]), {}),
        "10 ranked queries, but a truth for 7": (iter([scores, scores[:3]]), {}),
        "6 ranked queries, but a truth for 7": (scores[:6], {}),
        "points past the database of 5": (scores[:, :5], {}),
        "scores are numbers": (np.full((7, 30), "a"), {}),
        "scores are numbers (queries, database images), got float64 of shape (30,)": (
            scores[0],
            {},
        ),
        "say ['cmc@1']": (scores, {"metrics": "cmc@1"}),
        "'ndcg' is not one of": (scores, {"metrics": ["ndcg"]}),
        "definition 'area' is not one of": (scores, {"definition": "area"}),
        "no mean over ties is known for cmc@1": (
            scores,
            {"ties": "expected", "metrics": ["cmc@1"]},
        ),
        "no mean over ties is known for interpolated": (
            scores,
            expected | {"definition": "interpolated"},
        ),
        "ties is one of": (scores, {"ties": "lucky"}),
        "repeats is 'error' or 'miss'": (Ranking.from_scores(scores), {"repeats": "twice"}),
    }


@pytest.mark.parametrize("message", bad_inputs())
def test_one_clear_error(message):
    given_, settings_ = bad_inputs()[message]
    with pytest.raises(TruthError) as error:
        evaluate(given_, case()[1], **settings_)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("ids", [[["a", "b"]], [[0.5, 1]], [[0, -2]]])
def test_ids_are_positions(ids):
    with pytest.raises(TruthError, match="position"):
        Ranking(ids, [[1, 0]])


def test_right_and_junk_at_once_is_an_error():
    with pytest.raises(TruthError, match="listed twice"):
        GroundTruth(positive=[[1, 2]], junk=[[2]])


def test_repeated_images():
    "Skipped, but it takes its rank: Google Landmarks v2. A repeated negative is wrong twice."
    truth = GroundTruth(positive=[[0, 2]], junk=[[9]])
    ranking = Ranking([[0, 0, 2, 5, 5]], [[5, 4, 3, 2, 1]])
    with pytest.raises(TruthError, match="image 0 stands twice"):
        evaluate(ranking, truth)
    row = evaluate(ranking, truth, repeats="miss", definition="cut@100").per_query.loc[0]
    assert row["ap"] == pytest.approx((1 + 2 / 3) / 2) and row["n_found"] == 2
    twice = Ranking([[5, 5, 0, 2]], [[4, 3, 2, 1]])
    assert evaluate(twice, truth, definition="cut@100").summary["mAP"] == pytest.approx(5 / 12)


def test_the_order_of_a_list_counts():
    "Lists whose scores rise, as after some re-ranking, are judged by their order."
    truth = GroundTruth(positive=[[7]])
    rising = Ranking([[3, 7]], [[0.1, 0.9]])
    assert evaluate(rising, truth, definition="rectangular").summary["mAP"] == 0.5


def test_queries_without_positives_are_skipped_and_counted():
    scores, truth = np.eye(3), GroundTruth(positive=[[0], [], [1]])
    s = evaluate(scores, truth, metrics=["cmc@1"], definition="rectangular").summary
    assert (s["n_queries"], s["n_empty"], s["cmc@1"], s["mAP"]) == (2, 1, 0.5, (1 + 1 / 3) / 2)
    with pytest.raises(TruthError, match="no query has a positive"):
        evaluate(scores, GroundTruth(positive=[[], [], []]))


def test_a_query_without_a_result_scores_nothing():
    "But it stays in the mean: Google Landmarks v2 without a prediction."
    truth = GroundTruth(positive=[[0], [1]])
    ranking = Ranking([[0, 1], [-1, -1]], [[2, 1], [-np.inf, -np.inf]])
    s = evaluate(ranking, truth, definition="cut@100", metrics=["found_ap@5", "first_rank@100"])
    assert s.summary["mAP"] == s.summary["found_ap@5"] == 0.5
    assert s.per_query["first_rank@100"].tolist() == [1, 101]


def test_distinct_scores_do_not_know_the_database():
    rng = np.random.default_rng(0)
    scores, truth = rng.permuted(np.tile(np.arange(30.0), (7, 1)), axis=1), case()[1]
    p = rng.permutation(30)
    place = np.argsort(p)
    lists_ = ([place[o] for o in getattr(truth, k)] for k in ("easy", "hard", "junk"))
    moved = GroundTruth(*lists_)
    for protocol in truth.protocols:
        a, b = query_table(scores, truth, protocol), query_table(scores[:, p], moved, protocol)
        pd.testing.assert_frame_equal(a, b)


def test_classic_truth_keeps_the_groups():
    truth = classic_truth(GroundTruth(easy=[[1], [2]], hard=[[0], []], junk=[[3], [0]]), [3, 0])
    assert [p.tolist() for p in truth.easy] == [[0, 1, 3], [0, 2]]
    assert [p.tolist() for p in truth.junk] == [[], []]
    assert len(truth.group_names) == 2


# --- results


def read_trec(run, qrels):
    "Sort a run by score, as trec_eval does, and return its hits and the positives by query."
    right = {}
    for line in qrels.read_text().splitlines():
        query, _, image, _ = line.split()
        right.setdefault(query, set()).add(image)
    table = pd.read_csv(run, sep=" ", names=["query", "_", "image", "rank", "score", "tag"])
    for query, rows in table.groupby("query", sort=False):
        rows = rows.sort_values("score", ascending=False, kind="stable")
        assert rows["score"].is_unique
        yield np.array([i in right[query] for i in rows["image"]]), len(right[query])


@pytest.mark.parametrize("k", [None, 12])
def test_trec_files_have_the_same_map(tmp_path, k):
    scores, truth = case()
    result = evaluate(Ranking.from_scores(scores, k), truth, definition="rectangular")
    files = result.to_trec(tmp_path / "new" / "photos")
    values = [average_precision(hits, n, "rectangular") for hits, n in read_trec(*files)]
    assert np.mean(values) == pytest.approx(result.summary["mAP"], **CLOSE)
    assert sorted(p.name for p in files[0].parent.iterdir()) == ["photos.qrels", "photos.run"]


def test_results_remember(tmp_path):
    scores, truth = case()
    a = evaluate(scores, truth, dataset="drawn", split="test", seed=3)
    data = json.loads(a.to_json(tmp_path / "a.json"))
    assert data == json.loads((tmp_path / "a.json").read_text())
    assert data["summary"]["mAP"] == a.summary["mAP"] and len(data["per_query"]) == 7
    remembered = {"dataset": "drawn", "split": "test", "protocol": "medium", "seed": 3}
    assert remembered.items() <= data["summary"].items()
    assert set(data["summary"]["versions"]) == {"imret", "numpy", "scipy"}
    one_group = GroundTruth(positive=truth.easy, groups=[0] * 7)
    b = evaluate(scores, one_group)
    assert json.loads(b.to_json())["summary"]["mAP_low"] is None
    table = results_table({"a": a, "b": b})
    assert table["protocol"].tolist() == ["medium", "all"] and table["mAP"].notna().all()


# --- pairs


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_pairs_against_scikit_learn(pairs):
    scores, same = (np.array(o) for o in zip(*pairs, strict=True))
    if same.all() or not same.any():
        assert np.isnan(pair_auc(scores, same)) and np.isnan(equal_error_rate(scores, same))
        return
    assert pair_auc(scores, same) == pytest.approx(roc_auc_score(same, scores), **CLOSE)
    accepted, found, _ = roc_curve(same, scores, drop_intermediate=False)
    theirs = brentq(lambda x: 1 - x - interp1d(accepted, found)(x), 0, 1)
    ours = equal_error_rate(scores, same)
    if len(np.unique(accepted)) == len(accepted):  # else the curve jumps, and theirs is arbitrary
        assert ours == pytest.approx(theirs, **CLOSE)
    assert 0 <= ours <= 1
    distinct = scores + np.linspace(0, 0.5, len(scores))
    expected = average_precision_score(same, distinct)
    assert micro_precision(distinct, same) == pytest.approx(expected, **CLOSE)


def slow_gap(rows, truth):
    "GAP as its definition reads."
    rows = sorted(rows, key=lambda r: (-r[2], r[0], r[1]))
    right, total = 0, 0.0
    for i, (query, label, _) in enumerate(rows, start=1):
        if truth.get(query) == label:
            right += 1
            total += right / i
    return total / len(truth)


def test_gap_against_its_definition():
    rng = np.random.default_rng(0)
    for _ in range(50):
        truth = {f"q{q}": int(rng.integers(4)) for q in range(12) if rng.random() < 0.7} or {
            "q0": 1
        }
        rows = [
            (f"q{q}", int(label), float(rng.integers(5)))
            for q in range(12)
            for label in rng.permutation(4)[: rng.integers(0, 4)]
        ]
        answers = pd.DataFrame(rows, columns=["query", "label", "score"])
        ours = global_average_precision(answers, truth)
        assert ours == pytest.approx(slow_gap(rows, truth), **CLOSE)
        kept = [r for r in rows if r[0] in truth]
        ours = global_average_precision(answers, truth, ignore_others=True)
        assert ours == pytest.approx(slow_gap(kept, truth), **CLOSE)


def test_recall_at_precision_against_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(100):
        scores, right = rng.integers(0, 8, 30), rng.random(30) < 0.5
        best = 0
        for t in np.unique(scores):
            taken = scores >= t
            if right[taken].mean() >= 0.6:
                best = max(best, right[taken].sum() / right.sum())
        assert recall_at_precision(scores, right, 0.6) == pytest.approx(best, **CLOSE)
    assert np.isnan(recall_at_precision([1], [0]))
