"""Near-duplicates against SciPy's complete link, on ties, copies and bad input."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy

from imret.core import l2_normalize
from imret.search import SearchError, duplicate_groups
from imret.search.duplicates import similar_pairs

COLUMNS = ["group", "id", "similarity", "weakest", "weakest_a", "weakest_b"]


def clustered(seed, n=60, dim=6, noise=0.25):
    "Vectors around a few directions, in random order."
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n // 5, dim))
    return l2_normalize(centres[rng.integers(0, n // 5, n)] + noise * rng.normal(size=(n, dim)))


def as_sets(found):
    return {frozenset(ids) for _, ids in found.groupby("group")["id"]}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("threshold", [0.8, 0.95])
def test_equal_to_scipys_complete_link(seed, threshold):
    x = clustered(seed)
    distances = 1 - (x.astype(float) @ x.T)[np.triu_indices(len(x), 1)]
    tree = hierarchy.linkage(distances, "complete")
    labels = hierarchy.fcluster(tree, 1 - threshold, "distance")
    peer = {frozenset(np.flatnonzero(labels == c)) for c in np.unique(labels)}
    assert as_sets(duplicate_groups(x, threshold)) == {g for g in peer if len(g) > 1}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.6, 0.8, 0.9, 1.0]))
def test_promises_hold_on_ties(seed, threshold):
    "Few distinct directions, so that nearly everything ties."
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (30, 3)) + np.array([0, 0, 0.5])
    found = duplicate_groups(x, threshold)
    cosines = (l2_normalize(x) @ l2_normalize(x).T).round(6)
    assert found.columns.tolist() == COLUMNS and found["id"].is_unique
    firsts = found.groupby("group")["id"].min()
    assert firsts.is_monotonic_increasing and list(firsts.index) == list(range(len(firsts)))
    for _, group in found.groupby("group"):
        ids = group["id"].to_numpy()
        among = cosines[np.ix_(ids, ids)]
        assert len(ids) > 1 and among.min() >= threshold - 2e-6
        assert group["weakest"].iloc[0] == pytest.approx(among.min(), abs=2e-6)
        a, b = group[["weakest_a", "weakest_b"]].iloc[0]
        assert a < b and cosines[a, b] == pytest.approx(among.min(), abs=2e-6)
        sums = among.sum(axis=0)
        assert sums[0] == pytest.approx(sums.max(), abs=1e-3)
        assert group["similarity"].is_monotonic_decreasing and group["similarity"].iloc[0] == 1
        assert np.allclose(group["similarity"], among[0], atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
def test_another_order_gives_the_same_groups(seed):
    x = clustered(seed)
    order = np.random.default_rng(seed).permutation(len(x))
    moved = duplicate_groups(x[order], 0.85)
    assert {frozenset(order[list(g)]) for g in as_sets(moved)} == as_sets(duplicate_groups(x, 0.85))


def test_every_call_gives_the_same_table():
    x = np.repeat(clustered(0, 30), 2, axis=0)
    pd.testing.assert_frame_equal(duplicate_groups(x, 0.8), duplicate_groups(x, 0.8))


def test_length_does_not_matter():
    x = clustered(1)
    lengths = np.random.default_rng(0).uniform(0.1, 9, (len(x), 1))
    pd.testing.assert_frame_equal(
        duplicate_groups(x * lengths, 0.9), duplicate_groups(x, 0.9), atol=2e-6
    )


def test_thousands_of_copies_are_no_millions_of_pairs():
    x = np.concatenate([np.tile([[1.0, 0.0]], (3000, 1)), [[0.0, 1.0]]])
    found = duplicate_groups(x, 0.9, max_pairs=10)
    assert len(found) == 3000 and found["id"].tolist() == list(range(3000))
    assert set(found["weakest"]) == {1} and tuple(found.iloc[0][COLUMNS[-2:]]) == (0, 1)


def test_copies_count_for_the_medoid():
    "Between two neighbours of 0 degrees and 20 degrees, the one that is there three times wins."
    angles = np.radians([20, 0, 0, 0])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = duplicate_groups(x, 0.9)
    assert found["id"].tolist() == [1, 2, 3, 0]
    assert found[["weakest_a", "weakest_b"]].drop_duplicates().to_numpy().tolist() == [[0, 1]]


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_blocks_change_nothing(block):
    x = clustered(3)
    i, j, cosines = similar_pairs(x, 0.7, block=block)
    slow = [(a, b) for a in range(60) for b in range(a + 1, 60) if x[a] @ x[b] >= 0.7]
    assert list(zip(i, j, strict=True)) == slow
    assert np.allclose(cosines, [x[a] @ x[b] for a, b in slow], atol=1e-6)


def test_no_matrix_of_all_pairs_is_held():
    import tracemalloc

    x = l2_normalize(np.random.default_rng(0).normal(size=(6000, 16)))
    tracemalloc.start()
    similar_pairs(x, 0.99, block=512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(x) ** 2  # a quarter of what the cosines alone would take


def test_nothing_alike_gives_an_empty_table():
    found = duplicate_groups(np.eye(4), 0.5)
    assert found.columns.tolist() == COLUMNS and not len(found)
    assert duplicate_groups(np.empty((0, 4)), 0.5).columns.tolist() == COLUMNS


@pytest.mark.parametrize(
    ("vectors", "threshold", "message"),
    [
        (np.eye(3), 0, "threshold is a cosine above 0"),
        (np.eye(3), 1.01, "threshold is a cosine above 0"),
        (np.eye(3), np.nan, "threshold is a cosine above 0"),
        (np.ones(3), 0.9, "a matrix"),
        (np.array([["a"]]), 0.9, "a matrix"),
        (np.array([[1, 0], [np.nan, 1]]), 0.9, "row 1 is zero, NaN or infinite"),
        (np.array([[1.0, 0], [0, 0]]), 0.9, "row 1 is zero, NaN or infinite"),
        (np.array([[1.0, np.inf]]), 0.9, "row 0 is zero, NaN or infinite"),
        (np.arange(1, 31)[:, None] + [0, 50], 0.1, "more than 100 pairs"),
    ],
)
def test_bad_input(vectors, threshold, message):
    with pytest.raises(SearchError, match=message):
        duplicate_groups(vectors, threshold, max_pairs=100)
