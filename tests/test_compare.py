"""Two systems on one truth: intervals and p-values under known truths, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from imret.core import GroundTruth, Ranking, TruthError
from imret.evaluation import bootstrap_interval, evaluate
from imret.evaluation.compare import compare, permutation_p
from imret.evaluation.confidence import group_sums, overlap_groups

GROUPS = np.repeat(np.arange(20), 3)


def evaluation(seed, groups=GROUPS, n=12):
    "A random ranking of `n` images for queries that have two positives each."
    rng = np.random.default_rng(seed)
    truth = GroundTruth(positive=[[g % n, (g + 1) % n] for g in groups], groups=list(groups))
    return evaluate(Ranking.from_scores(rng.normal(size=(len(groups), n))), truth)


# --- the interval


@pytest.mark.parametrize("seed", range(5))
def test_by_group_is_wider_where_groups_share_their_fate(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=20)[GROUPS] + 0.3 * rng.normal(size=60)
    widths = [np.diff(bootstrap_interval(values, GROUPS, by=by))[0] for by in ("group", "query")]
    assert widths[0] > 1.3 * widths[1]


def test_by_query_is_by_group_with_groups_of_one():
    values = np.random.default_rng(0).random(60)
    alone = bootstrap_interval(values, np.arange(60))
    assert bootstrap_interval(values, GROUPS, by="query") == alone


def test_percentile_where_bca_is_undefined():
    "Lists that are all perfect give no width and no NaN; nor do lists that are perfect but one."
    assert bootstrap_interval(np.ones(9), np.arange(9)) == (1, 1)
    low, high = bootstrap_interval([1] * 8 + [0.1], np.arange(9))
    assert 0.1 < low < 0.9 < high <= 1


@pytest.mark.parametrize("function", [bootstrap_interval, permutation_p, group_sums])
def test_unknown_by(function):
    with pytest.raises(TruthError, match="by is 'group' or 'query', not 'landmark'"):
        function([0.1, 0.2], [0, 1], by="landmark")


# --- groups by overlap


def slow_overlap_groups(positives, share):
    "By repeated relabelling, as one would by hand."
    labels = list(range(len(positives)))
    for i, p in enumerate(positives):
        for j, q in enumerate(positives):
            if len(set(p) & set(q)) > share * min(len(p), len(q)):
                old, new = labels[j], labels[i]
                labels = [new if v == old else v for v in labels]
    return pd.factorize(np.array(labels))[0]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 12), max_size=6), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.3, 0.5, 0.9]),
)
def test_overlap_groups_against_relabelling(sets, share):
    positives = [sorted(s) for s in sets]
    assert overlap_groups(positives, share).tolist() == list(slow_overlap_groups(positives, share))


# --- the p-value


def test_p_is_uniform_where_nothing_differs():
    "Few groups, so that p is exact: under the null it is at most u in at most a share u of cases."
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 3)
    p = [
        permutation_p(rng.normal(size=10)[groups] + rng.normal(size=30), groups) for _ in range(400)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_p_by_query_is_too_small_where_groups_share_their_fate():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 5)
    draws = [rng.normal(size=10)[groups] + 0.2 * rng.normal(size=50) for _ in range(200)]
    wrong = {
        by: np.mean([permutation_p(d, groups, 499, by=by) < 0.05 for d in draws])
        for by in ("group", "query")
    }
    assert wrong["group"] < 0.1 < 0.25 < wrong["query"]


@pytest.mark.parametrize("n", [3, 8, 12])
def test_exact_p_is_scipys(n):
    x = np.random.default_rng(n).normal(0.3, 1, n)
    peer = stats.permutation_test(
        (x,), lambda v, axis: v.mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    assert permutation_p(x, np.arange(n)) == pytest.approx(peer.pvalue)


def test_drawn_p_is_near_the_exact_one():
    x = np.random.default_rng(1).normal(0.4, 1, 13)
    exact = permutation_p(x, np.arange(13))
    assert permutation_p(x, np.arange(13), n_resamples=5000) == pytest.approx(exact, abs=0.02)


def test_p_is_never_zero():
    x = np.full(40, 0.5)
    assert permutation_p(x, np.arange(40), n_resamples=99) == 1 / 100


# --- compare


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_exchanging_a_and_b_changes_signs_only(one, two):
    a, b = evaluation(one), evaluation(two)
    there, back = (compare(*pair, n_resamples=199).summary for pair in ((a, b), (b, a)))
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["p"] == back["p"]
    for unit in ("", "group_"):
        assert there[unit + "wins"] == back[unit + "losses"]
        assert there[unit + "ties"] == back[unit + "ties"]
        total = sum(there[unit + k] for k in ("wins", "ties", "losses"))
        assert total == there["n_groups" if unit else "n_queries"]


def test_no_loss_is_about_the_lower_end():
    a, b = evaluation(0), evaluation(1)
    low = compare(a, b).summary["low"]
    assert compare(a, b, margin=-low + 1e-6).summary["no_loss"]
    assert not compare(a, b, margin=max(0, -low - 1e-6)).summary["no_loss"]


def test_queries_without_positives_are_left_out():
    ranking = Ranking([[0, 1, 2]] * 4, [[3, 2, 1]] * 4)
    truth = GroundTruth(positive=[[0], [], [1], [2]], groups=[0, 1, 2, 3])
    result = compare(evaluate(ranking, truth), evaluate(ranking, truth))
    assert result.per_query["query"].tolist() == [0, 2, 3]
    assert result.summary["n_queries"] == 3 and result.summary["ties"] == 3
    assert result.summary["p"] == 1 and result.summary["low"] == 0


def test_other_groups_may_be_given():
    a, b = evaluation(0), evaluation(1)
    one = compare(a, b, groups=np.zeros(60, int))
    assert one.summary["n_groups"] == 1 and np.isnan(one.summary["low"])
    assert not one.summary["no_loss"] and "no interval from one group" in repr(one)


def test_moved_is_sorted_and_keeps_the_order_of_equals():
    moved = compare(evaluation(0), evaluation(1)).moved(60)["difference"].abs().round(12)
    assert moved.is_monotonic_decreasing
    ties = moved[moved.duplicated(keep=False)]
    assert ties.groupby(ties).apply(lambda s: list(s.index) == sorted(s.index)).all()


def test_the_repr_says_how():
    a, b = evaluation(0), evaluation(1)
    text = repr(compare(a, b, metric="p@5", by="query", confidence=0.9))
    assert text.startswith("mP@5 ") and "as independent" in text and "90% interval" in text


def test_plot_takes_names_and_axes():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    result = compare(evaluation(0), evaluation(1))
    assert result.plot([f"landmark {g}" for g in range(20)], ax=ax) is ax
    names = [t.get_text() for t in ax.get_yticklabels()]
    worst = result.per_group["difference"].idxmin()
    assert names[0] == f"landmark {worst}"
    plt.close("all")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: evaluation(1, GROUPS[:-1]), "a has 60 queries, b 59"),
        (lambda: evaluation(1, np.arange(60) // 2), "differ in group at row 2"),
        (
            lambda: evaluate(
                Ranking([[0]] * 60, [[1]] * 60),
                GroundTruth(positive=[[0]] * 60, groups=list(GROUPS)),
            ),
            "differ in n_positive at row 0",
        ),
        (
            lambda: evaluate(
                Ranking([[0]] * 60, [[1]] * 60), GroundTruth(easy=[[0]] * 60, hard=[[]] * 60)
            ),
            "a has protocol 'all', b 'medium'",
        ),
    ],
)
def test_other_truths_are_refused(other, message):
    with pytest.raises(TruthError, match=message):
        compare(evaluation(0), other())


def test_a_truth_with_as_many_other_positives_is_refused():
    a, other = evaluation(0), evaluation(1)
    truth = GroundTruth(positive=[[(g + 2) % 12, g % 12] for g in GROUPS], groups=list(GROUPS))
    b = evaluate(Ranking.from_scores(np.random.default_rng(1).normal(size=(60, 12))), truth)
    assert compare(a, other).summary["n_queries"] == 60
    with pytest.raises(TruthError, match="differ in what is easy for query 0"):
        compare(a, b)


def test_sets_of_other_names_are_refused():
    truth = GroundTruth(positive=[[0], [1]])
    ranking = Ranking([[0, 1], [0, 1]], [[2, 1], [2, 1]])
    named = [evaluate(ranking, truth, dataset=name) for name in ("here", "there", None)]
    with pytest.raises(TruthError, match="a has dataset 'here', b 'there'"):
        compare(*named[:2])
    assert compare(named[0], named[2]).summary["ties"] == 2


def test_another_definition_is_refused():
    truth = GroundTruth(positive=[[0], [1]])
    ranking = Ranking([[0, 1], [0, 1]], [[2, 1], [2, 1]])
    with pytest.raises(TruthError, match="a has definition 'trapezoid', b 'rectangular'"):
        compare(evaluate(ranking, truth), evaluate(ranking, truth, definition="rectangular"))
