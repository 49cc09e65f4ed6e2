"""Counts at thresholds against plain loops and scikit-learn; bounds, splits and bad input."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from imret.core import TruthError
from imret.evaluation import (
    choose_threshold,
    group_spread,
    held_out_threshold,
    scored_pairs,
    threshold_table,
)


def collection(seed=0, n_groups=12, size=4, dim=16, noise=0.7):
    "Unit vectors around a centre a group: their similarity, and the groups."
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    vectors = rng.normal(size=(n_groups, dim))[groups] + noise * rng.normal(size=(len(groups), dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T).astype(np.float32), groups


hundredths = st.lists(
    st.tuples(st.integers(0, 100), st.booleans()), min_size=2, max_size=60
).filter(lambda rows: len({same for _, same in rows}) == 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(rows=hundredths)
@settings(max_examples=60, deadline=None)
def test_scores_of_two_decimals_are_counted_as_whole_numbers(dtype, rows):
    scores = np.array([float(Fraction(k, 100)) for k, _ in rows], dtype)
    same = np.array([s for _, s in rows])
    table = threshold_table(scores, same)
    for step in range(101):
        assert table["same"][step] == sum(k >= step and s for k, s in rows)
        assert table["unrelated"][step] == sum(k >= step and not s for k, s in rows)
        assert table["missed"][step] == sum(k < step and s for k, s in rows)


def test_agrees_with_sklearn_and_a_plain_loop():
    similarity, groups = collection()
    table = threshold_table(similarity, groups, [-1, 0.2, 0.45, 0.7])
    for row in table.itertuples():
        truth, returned = [], []
        for i in range(len(groups)):
            for j in range(i):
                truth.append(groups[i] == groups[j])
                returned.append(similarity[i, j] >= np.float32(row.threshold))
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, returned, average="binary"
        )
        np.testing.assert_allclose([row.precision, row.recall, row.f1], [precision, recall, f1])
        assert row.fpr == np.mean(np.array(returned)[~np.array(truth)])


def test_queries_against_a_database_and_pairs_are_the_same_pairs():
    similarity, groups = collection()
    matrix = threshold_table(similarity[:10], groups[:10], database_groups=groups)
    pairs = scored_pairs(similarity[:10], groups[:10], groups)
    assert len(pairs) == 10 * len(groups)
    listed = threshold_table(pairs.scores, pairs.same)
    np.testing.assert_array_equal(matrix, listed)
    rows, columns = pairs.items.T
    np.testing.assert_array_equal(similarity[rows, columns], pairs.scores)
    np.testing.assert_array_equal(groups[rows] == groups[columns], pairs.same)


def test_the_order_of_items_changes_nothing():
    similarity, groups = collection()
    order = np.random.default_rng(1).permutation(len(groups))
    shuffled = similarity[np.ix_(order, order)], groups[order]
    np.testing.assert_array_equal(threshold_table(similarity, groups), threshold_table(*shuffled))


def test_counts_fall_and_recall_and_fpr_with_them():
    table = threshold_table(*collection(), np.linspace(-1, 1, 77))
    for column in ("same", "unrelated", "recall", "fpr"):
        assert (np.diff(table[column]) <= 0).all()


def test_infinite_scores_are_scores():
    table = threshold_table([np.inf, -np.inf, 0.5], np.array([True, True, False]), [0.0, 1.0])
    assert table["same"].tolist() == [1, 1] and table["unrelated"].tolist() == [1, 0]


TWO = np.array([True, False])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([0.1, np.nan], TWO), "pair 1 is NaN"),
        (([0.1, 0.2, 0.3], TWO), "3 scores of pairs need as many True or False"),
        (([0.1, 0.2], np.array([1, 0])), "True or False"),
        (([0.1, 0.2], np.array([True, True])), "is unrelated"),
        (([0.1, 0.2], np.array([False, False])), "is same-origin"),
        (([], np.array([], bool)), "none of the 0 pairs is same-origin"),
        ((np.eye(3), ["a", "a"]), "need a group for each row and column, got 2 and 2"),
        ((np.ones((2, 3)), ["a", "b"]), "database_groups"),
        ((np.eye(3), ["a", None, "b"]), "item 1 has no group"),
        ((np.eye(3), ["a", float("nan"), "b"]), "item 1 has no group"),
        ((np.eye(3), ["a", "a", "a"]), "is unrelated"),
        ((np.eye(3), ["a", "b", "c"]), "is same-origin"),
        ((np.arange(9.0).reshape(3, 3), ["a", "a", "b"]), "symmetric"),
        ((np.array([[1, np.nan], [np.nan, 1]]), ["a", "a"]), "items 0 and 1 is NaN"),
    ],
)
def test_bad_pairs(arguments, message):
    with pytest.raises(TruthError, match=message):
        threshold_table(*arguments)


@pytest.mark.parametrize(
    "thresholds, message",
    [
        ([0.5, 0.4], "0.4 stands after 0.5"),
        ([0.5, 0.5], "0.5 stands after 0.5"),
        ([], "at least one"),
        ([0.1, np.nan], "finite"),
        ([[0.1]], "a list"),
    ],
)
def test_bad_thresholds(thresholds, message):
    with pytest.raises(TruthError, match=message):
        threshold_table([0.1, 0.2], TWO, thresholds)


def test_the_lowest_threshold_that_keeps_the_goal():
    similarity, groups = collection()
    table = threshold_table(similarity, groups)
    naive = choose_threshold(similarity, groups, 0.9, confidence=0)
    assert naive.threshold == table["threshold"][table["precision"] >= 0.9].min()
    sure = choose_threshold(similarity, groups, 0.9)
    assert sure.threshold >= naive.threshold and 0.9 <= sure.bound <= sure.precision
    naive = choose_threshold(similarity, groups, max_fpr=0.01, confidence=0)
    assert naive.threshold == table["threshold"][table["fpr"] <= 0.01].min()
    sure = choose_threshold(similarity, groups, max_fpr=0.01)
    assert sure.threshold >= naive.threshold and sure.fpr <= sure.bound <= 0.01


def test_listed_pairs_have_the_exact_bound():
    from scipy.stats import beta

    scores, same = np.r_[np.full(200, 0.9), np.full(50, 0.1)], np.r_[np.ones(199), np.zeros(51)] > 0
    point = choose_threshold(scores, same, 0.9, thresholds=[0.5])
    assert point.bound == pytest.approx(beta.ppf(0.05, 199, 2))
    assert point == choose_threshold(scores, same, 0.9, thresholds=[0.5], seed=7)  # no draw


def test_repeating_every_item_makes_nothing_surer_than_its_groups():
    "Copies add pairs but no knowledge: the bound over groups does not move up to certainty."
    similarity, groups = collection(noise=0.9)
    point = choose_threshold(similarity, groups, 0.5)
    copies = np.repeat(np.arange(len(groups)), 6)
    # pairs of an item with its own copy are left out of this comparison: recall is of no interest
    again = scored_pairs(similarity[np.ix_(copies, copies)], groups[copies])
    honest = choose_threshold(similarity[np.ix_(copies, copies)], groups[copies], 0.5)
    listed = choose_threshold(again.scores, again.same, 0.5, thresholds=[honest.threshold])
    assert listed.precision - listed.bound < 0.3 * (honest.precision - honest.bound)
    assert point.precision - point.bound < 3 * (honest.precision - honest.bound)


def test_the_bound_holds_about_as_often_as_it_says():
    "Many collections from one law: how often is the true precision below the bound?"
    cut = 0.6
    truth = threshold_table(*collection(99, n_groups=12 * 1, size=4, noise=0.9), [cut])
    many = [threshold_table(*collection(s, noise=0.9), [cut]).iloc[0] for s in range(300)]
    true = sum(r["same"] for r in many) / sum(r["same"] + r["unrelated"] for r in many)
    assert len(truth) == 1 and 0.3 < true < 0.99
    held = []
    for seed in range(100):
        point = choose_threshold(
            *collection(seed, noise=0.9), 0.01, thresholds=[cut], n_resamples=400
        )
        held.append(point.bound <= true)
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "either target_precision or max_fpr"),
        ({"target_precision": 0.9, "max_fpr": 0.1}, "either target_precision or max_fpr"),
        ({"target_precision": 1.5}, "share from 0 to 1, not 1.5"),
        ({"max_fpr": -0.1}, "share from 0 to 1, not -0.1"),
        ({"target_precision": 0.9, "confidence": 1}, "confidence is a share"),
        ({"target_precision": 1, "thresholds": [0.3]}, "none has it"),
        ({"target_precision": 1}, "the best is threshold"),
    ],
)
def test_goals_that_cannot_be(arguments, message):
    with pytest.raises(TruthError, match=message):
        choose_threshold(*collection(noise=0.9), **arguments)


def test_halves_share_no_group_and_the_seed_decides():
    similarity, groups = collection()
    rows = held_out_threshold(similarity, groups, 0.8, seed=3)
    assert list(rows.index) == ["chosen", "held out"] and rows["groups"].tolist() == [6, 6]
    assert (rows["same"] + rows["missed"]).tolist() == [36, 36]
    assert rows["kept"]["chosen"] and rows["threshold"].nunique() == 1
    assert rows.equals(held_out_threshold(similarity, groups, 0.8, seed=3))
    with pytest.raises(TruthError, match="lacks pairs of a kind"):
        held_out_threshold(similarity[:8, :8], groups[:8], 0.8)


def test_a_half_is_judged_as_on_it_alone():
    similarity, groups = collection(noise=0.9)
    half = np.sort(np.random.default_rng(3).permutation(12)[:6])
    inside = np.isin(groups, half)
    alone = similarity[np.ix_(inside, inside)], groups[inside]
    for goal in ({"target_precision": 0.5}, {"max_fpr": 0.05}):
        rows = held_out_threshold(similarity, groups, **goal, seed=3)
        point = choose_threshold(*alone, **goal, seed=3)
        assert rows["threshold"]["chosen"] == point.threshold
        assert rows["precision"]["chosen"] == point.precision


def test_spread_counts_every_pair():
    similarity, groups = collection(noise=0.9)
    spread = group_spread(similarity, groups, 0.4)
    row = threshold_table(similarity, groups, [0.4]).iloc[0]
    assert spread["same"].sum() == row["same"]
    assert spread["unrelated"].sum() == 2 * row["unrelated"]
    assert spread["n_same"].tolist() == [6] * 12
    with pytest.raises(TruthError, match="groups of items"):
        group_spread([0.1, 0.2], TWO, 0.5)
