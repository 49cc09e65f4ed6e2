"""The evaluator against slow loops, another library, and the truth of the revisited benchmarks."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from imret.core import GroundTruth, Ranking, TruthError
from imret.datasets import read_revisited
from imret.evaluation import average_precision, evaluate, query_table


def slow_revisited(ids, positives, junk, ks=(1, 5, 10)):
    "AP and mP@k of one query, place by place as the definition reads, without arrays."
    rank, found, ap, places = 0, 0, 0.0, []
    for i in ids:
        if i in junk:
            continue
        if i in positives:
            before = 1.0 if rank == 0 else found / rank
            found += 1
            ap += (before + found / (rank + 1)) / 2 / len(positives)
            places.append(rank + 1)
        rank += 1
    pages = []
    for k in ks:
        depth = min(max(places), k) if places else 1
        pages.append(sum(p <= depth for p in places) / depth)
    return ap, pages


@st.composite
def judged(draw):
    "A permutation of a small database, a share of it positive, a share junk, cut at some place."
    n = draw(st.integers(2, 25))
    order = draw(st.permutations(range(n)))
    kinds = draw(st.lists(st.sampled_from("pjnn"), min_size=n, max_size=n))
    positives = [i for i in range(n) if kinds[i] == "p"] or [0]
    junk = [i for i in range(n) if kinds[i] == "j" and i not in positives]
    return order, positives, junk, draw(st.integers(1, n))


def table(ids, positives, junk):
    truth = GroundTruth(positive=[positives], junk=[junk])
    ids = np.array([ids])
    return query_table(Ranking(ids, -np.arange(ids.size)[None]), truth).loc[0]


@settings(max_examples=300, deadline=None)
@given(judged())
def test_equal_to_the_slow_definition(case):
    order, positives, junk, cut = case
    row = table(order[:cut], positives, junk)
    ap, pages = slow_revisited(order[:cut], set(positives), set(junk))
    assert row["ap"] == pytest.approx(ap, abs=1e-12)
    assert [row["p@1"], row["p@5"], row["p@10"]] == pytest.approx(pages, abs=1e-12)


@settings(deadline=None)
@given(judged())
def test_junk_may_as_well_not_be_there(case):
    order, positives, junk, _ = case
    assert table(order, positives, junk)["ap"] == pytest.approx(
        table([i for i in order if i not in junk], positives, [])["ap"], abs=1e-12
    )


@settings(deadline=None)
@given(judged(), st.integers(0, 25))
def test_a_distractor_never_helps(case, place):
    order, positives, junk, _ = case
    more = order[:place] + [len(order)] + order[place:]
    assert table(more, positives, junk)["ap"] <= table(order, positives, junk)["ap"] + 1e-12


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_rectangular_is_scikit_learns(hits):
    scores = -np.arange(len(hits))
    ours = average_precision(hits, sum(hits), "rectangular")
    assert ours == pytest.approx(average_precision_score(hits, scores), abs=1e-12)


def test_scores_may_be_mapped_monotonically():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 40)).astype(np.float32)
    truth = GroundTruth(positive=[rng.choice(40, 6, replace=False) for _ in range(5)])
    one = evaluate(Ranking.from_scores(scores), truth).summary["mAP"]
    assert one == evaluate(Ranking.from_scores(np.exp(scores) * 3), truth).summary["mAP"]


def test_medium_has_the_positives_of_easy_and_hard():
    truth = GroundTruth(easy=[[0, 1]], hard=[[2]], junk=[[3]])
    ranking = Ranking(np.arange(5)[None], -np.arange(5)[None])
    counts = {p: query_table(ranking, truth, p)["n_positive"][0] for p in truth.protocols}
    assert counts == {"easy": 2, "medium": 3, "hard": 1}


def test_places_without_a_result_are_no_mistakes():
    row = table([0, 1], [0, 1], [])
    padded = Ranking([[0, 1, -1, -1]], [[2, 1, -np.inf, -np.inf]])
    assert query_table(padded, GroundTruth(positive=[[0, 1]])).loc[0].equals(row)


def test_one_group_has_no_interval():
    truth = GroundTruth(positive=[[0], [0]], groups=[1, 1])
    summary = evaluate(Ranking([[0, 1], [1, 0]], [[2, 1], [2, 1]]), truth).summary
    assert summary["mAP"] == pytest.approx(0.625) and np.isnan(summary["mAP_low"])


def test_an_image_listed_twice_is_an_error():
    ranking = Ranking([[3, 1, 3]], [[3, 2, 1]])
    with pytest.raises(TruthError, match="query 0: database image 3 stands twice"):
        evaluate(ranking, GroundTruth(positive=[[3]]))


@pytest.mark.skipif("IMRET_REVISITED_GND" not in os.environ, reason="IMRET_REVISITED_GND not set")
@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_on_the_revisited_truth(name):
    "A perfect ranking scores 1 under every protocol; a random one equals the slow definition."
    gnd = read_revisited(Path(os.environ["IMRET_REVISITED_GND"]) / f"gnd_{name}.pkl")
    n, truth = len(gnd.imlist), gnd.truth
    assert len(truth) == 70 and len(truth.group_names) == 24
    shuffled = np.random.default_rng(0).permuted(np.tile(np.arange(n), (70, 1)), axis=1)
    for protocol in truth.protocols:
        positives, junk = truth.protocol(protocol)
        first = [np.isin(np.arange(n), p) for p in positives]
        perfect = evaluate(Ranking.from_scores(np.array(first)), truth, protocol)
        assert perfect.summary["mAP"] == 1 and perfect.summary["mP@10"] == 1
        empty = 2 if (name, protocol) == ("roxford5k", "easy") else 0
        assert (perfect.summary["n_queries"], perfect.summary["n_empty"]) == (70 - empty, empty)
        rows = query_table(Ranking(shuffled, -np.tile(np.arange(n), (70, 1))), truth, protocol)
        for q in range(0, 70, 9):
            ap, _ = slow_revisited(shuffled[q], set(positives[q]), set(junk[q]))
            assert rows["ap"][q] == pytest.approx(ap, abs=1e-12) or not len(positives[q])
