"""Whitening: against plain loops and scikit-learn, its invariants, memory maps, and bad input."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from imret.core import l2_normalize
from imret.features import (
    LearnedWhitening,
    PCAWhitening,
    Whitening,
    WhiteningError,
    fit_whitening,
    guard_fit,
    matching_pairs,
    moments,
)


def sample(n: int = 300, d: int = 12, seed: int = 0) -> np.ndarray:
    "Vectors whose directions are correlated, of very different spread, and far from zero."
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) * np.geomspace(1, 0.03, d)
    return (rng.normal(size=(n, d)) @ mix.T + rng.normal(size=d) * 3).astype(np.float32)


def labelled(things: int = 30, views: int = 8, d: int = 12, seed: int = 0):
    "Vectors of things seen several times, and pairs of the same thing."
    rng = np.random.default_rng(seed)
    centers = np.repeat(sample(things, d, seed), views, axis=0)
    x = centers + rng.normal(size=(things * views, d)) * np.geomspace(0.5, 0.02, d)
    return x.astype(np.float32), matching_pairs(np.repeat(np.arange(things), views))


def plain_learned(x: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Mean and matrix as one would write them down, a pair and a vector at a time."
    x = x.astype(np.float64)
    d = x.shape[1]
    mean = sum(x[q] for q, _ in pairs) / len(pairs)
    scatter = np.zeros((d, d))
    for q, p in pairs:
        scatter += np.outer(x[q] - x[p], x[q] - x[p]) / len(pairs)
    first = np.linalg.inv(np.linalg.cholesky(scatter))
    spread = np.zeros((d, d))
    for row in x:
        spread += np.outer(first @ (row - mean), first @ (row - mean))
    values, vectors = np.linalg.eigh(spread)
    return mean, vectors[:, np.argsort(-values)].T @ first


# Invariants


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(0, 99), st.floats(0, 2))
def test_pca_gives_the_covariance_it_should(d, seed, power):
    x = sample(10 * d, d, seed)
    w = PCAWhitening(power=power).fit(x)
    covariance = np.cov(w.transform(x, normalize=False).T)
    wanted = np.diag(w.eigenvalues_ ** (1 - power))
    assert np.abs(covariance - wanted).max() < 1e-3 * max(wanted.max(), 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 16), st.integers(0, 99))
def test_learned_gives_identity_scatter_of_differences(d, seed):
    x, pairs = labelled(d=d, seed=seed)
    w = LearnedWhitening(shrinkage=0).fit(x, pairs)
    y = w.transform(x, normalize=False).astype(np.float64)
    differences = y[pairs[:, 0]] - y[pairs[:, 1]]
    assert np.abs(differences.T @ differences / len(pairs) - np.eye(d)).max() < 5e-3
    y = (x - w.mean_) @ w.projection_.T
    spread = y.T @ y
    assert np.abs(spread - np.diag(np.diag(spread))).max() < 1e-6 * spread.max()
    assert (np.diff(np.diag(spread)) < 1e-6 * spread.max()).all()


@pytest.mark.parametrize("whitening", [PCAWhitening(5), LearnedWhitening(5)])
def test_rows_have_length_one_and_stand_alone(whitening):
    x, pairs = labelled()
    y = whitening.fit_transform(x, pairs)
    assert y.dtype == np.float32 and y.shape == (len(x), 5)
    assert np.allclose(np.linalg.norm(y, axis=1), 1, atol=1e-6)
    assert np.allclose(y, l2_normalize(whitening.transform(x, normalize=False)), atol=1e-6)
    assert np.allclose(whitening.transform(x[7:8]), y[7:8], atol=1e-6)
    assert np.allclose(whitening.transform(x, block=17), y, atol=1e-6)
    torn = x.copy()
    torn[3] = np.nan
    after = whitening.transform(torn)
    assert np.isnan(after[3]).all() and np.allclose(np.delete(after, 3, 0), np.delete(y, 3, 0))


# Oracles


@pytest.mark.parametrize("dim", [None, 1, 4])
def test_pca_equals_sklearn(dim):
    x = sample()
    ours = PCAWhitening(dim).fit(x)
    oracle = PCA(dim, whiten=True, svd_solver="full").fit(x.astype(np.float64))
    wanted = oracle.transform(x.astype(np.float64))
    assert np.allclose(ours.transform(x, normalize=False), wanted, atol=1e-3)
    assert np.allclose(ours.mean_, oracle.mean_)
    assert np.allclose(ours.eigenvalues_[: len(wanted[0])], oracle.explained_variance_)


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_exponents_of_other_toolboxes(p):
    x = sample()
    oracle = PCA(svd_solver="full").fit(x.astype(np.float64))
    theirs = oracle.transform(x.astype(np.float64)) / oracle.explained_variance_**p
    assert np.allclose(
        PCAWhitening(power=2 * p).fit(x).transform(x), l2_normalize(theirs), atol=1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_learned_equals_the_plain_loop(seed):
    x, pairs = labelled(12, 5, 6, seed)
    w = LearnedWhitening(shrinkage=0).fit(x, pairs)
    mean, matrix = plain_learned(x, pairs)
    assert np.allclose(w.mean_, mean)
    signs = np.sign((w.projection_ * matrix).sum(axis=1, keepdims=True))
    assert np.allclose(w.projection_, matrix * signs, rtol=1e-5, atol=1e-6)
    jitter = LearnedWhitening(shrinkage="jitter").fit(x, pairs)
    assert np.allclose(jitter.projection_, w.projection_)


def test_two_ways_to_give_pairs():
    x, pairs = labelled()
    two = LearnedWhitening().fit(x, (pairs[:, 0], pairs[:, 1]))
    assert np.array_equal(two.projection_, LearnedWhitening().fit(x, pairs).projection_)
    assert np.array_equal(two.projection_, LearnedWhitening().fit(x, pairs.tolist()).projection_)


def test_shrinkage_is_the_mean_eigenvalue():
    x, pairs = labelled()
    w = PCAWhitening(shrinkage=0.5).fit(x)
    values, mean = w.eigenvalues_, w.eigenvalues_.mean()
    covariance = np.cov(w.transform(x, normalize=False).T)
    assert np.allclose(np.diag(covariance), values / (values + 0.5 * mean), atol=1e-4)
    w = LearnedWhitening(shrinkage=0.5).fit(x, pairs)
    differences = (x[pairs[:, 0]] - x[pairs[:, 1]]).astype(np.float64)
    scatter = differences.T @ differences / len(pairs)
    shrunk = scatter + 0.5 * np.trace(scatter) / 12 * np.eye(12)
    assert np.allclose(w.projection_ @ shrunk @ w.projection_.T, np.eye(12), atol=1e-8)


def test_pca_first_equals_two_steps():
    x, pairs = labelled()
    first = PCAWhitening(5, power=0).fit(x)
    then = LearnedWhitening(3, shrinkage=0).fit(first.transform(x, normalize=False), pairs)
    wanted = then.transform(first.transform(x, normalize=False))
    ours = LearnedWhitening(3, shrinkage=0, pca=5).fit(x, pairs).transform(x)
    assert np.allclose(np.abs(ours), np.abs(wanted), atol=1e-4)
    assert np.allclose(ours @ ours.T, wanted @ wanted.T, atol=1e-4)


# Blocks


@pytest.mark.parametrize("block", [1, 7, 300, 4096])
def test_moments_of_blocks(block):
    x = sample() + 1000  # far from zero
    m = moments(x, block)
    assert np.allclose(m.mean, x.mean(axis=0, dtype=np.float64))
    covariance = np.cov(x.astype(np.float64).T)
    assert np.allclose(m.scatter(m.mean) / (m.n - 1), covariance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_memory_maps(tmp_path, dtype):
    x, pairs = labelled(300, 20)
    np.save(tmp_path / "x.npy", x.astype(dtype))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for whitening in (PCAWhitening(4), LearnedWhitening(4)):
        wanted = whitening.fit(x.astype(dtype), pairs).transform(x.astype(dtype))
        assert np.array_equal(whitening.fit(mapped, pairs).transform(mapped), wanted)


@pytest.mark.parametrize("per_label", [None, 1, 3, 100])
def test_matching_pairs(per_label):
    labels = np.random.default_rng(0).integers(0, 6, 60).tolist()
    pairs = matching_pairs(labels, per_label)
    every = {(i, j) for j in range(60) for i in range(j) if labels[i] == labels[j]}
    assert set(map(tuple, pairs)) <= every and len(set(map(tuple, pairs))) == len(pairs)
    counts = np.bincount([labels[i] for i, _ in pairs])
    full = np.bincount([labels[i] for i, _ in every])
    assert counts.tolist() == np.minimum(full, per_label or 10**9).tolist()
    assert np.array_equal(pairs, matching_pairs(labels, per_label))


def test_a_label_with_very_many_vectors():
    pairs = matching_pairs(["rome"] * 100_000, per_label=500)
    assert len(pairs) == 500 and (pairs[:, 0] < pairs[:, 1]).all() and pairs.max() < 100_000


# Files


@pytest.mark.parametrize("whitening", [PCAWhitening(5, 0.5), LearnedWhitening(5, 0.3, pca=8)])
def test_saved_and_read(tmp_path, whitening):
    x, pairs = labelled()
    file = tmp_path / "w.npz"
    whitening.fit(x, pairs, fitted_on="tinytown_train").save(file)
    again = Whitening.load(file)
    assert type(again) is type(whitening) and repr(again) == repr(whitening)
    assert (again.fitted_on_, again.rank_) == ("tinytown_train", whitening.rank_)
    assert np.array_equal(again.transform(x), whitening.transform(x))
    assert np.allclose(again.eigenvalues_, whitening.eigenvalues_)
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]
    again.fit(x, pairs).save(file)
    assert Whitening.load(file).fitted_on_ is None


def test_older_form(tmp_path):
    x, pairs = labelled()
    w = LearnedWhitening().fit(x, pairs)
    older = w.to_dict()
    columns = older["P"] @ (x.T - older["m"])
    columns /= np.linalg.norm(columns, axis=0, keepdims=True) + 1e-6
    assert np.allclose(w.transform(x), columns.T, atol=1e-5)
    assert np.array_equal(Whitening.from_dict(older).transform(x), w.transform(x))
    few = Whitening.from_dict(older, dim=3).transform(x)
    assert np.allclose(few, LearnedWhitening(3).fit(x, pairs).transform(x), atol=1e-6)
    np.savez(tmp_path / "older.npz", **older)
    assert np.array_equal(Whitening.load(tmp_path / "older.npz").transform(x), w.transform(x))


def test_damaged_files(tmp_path):
    file = tmp_path / "w.npz"
    PCAWhitening().fit(sample()).save(file)
    whole = file.read_bytes()
    for content in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(WhiteningError, match=r"w\.npz"):
            Whitening.load(file)
    np.savez(file, m=np.zeros(3), P=np.zeros((2, 4)))
    with pytest.raises(WhiteningError, match="does not fit"):
        Whitening.load(file)
    np.savez(file, m=np.array([{}], dtype=object), P=np.eye(1))
    with pytest.raises(WhiteningError, match="no whitening"):
        Whitening.load(file)
    np.savez(file, m=np.zeros(1), P=np.eye(1), about=np.array(json.dumps([1])))
    with pytest.raises(WhiteningError, match="no whitening"):
        Whitening.load(file)
    with pytest.raises(WhiteningError, match="nowhere"):
        Whitening.load(tmp_path / "nowhere.npz")


# Bad input

X, PAIRS = labelled()
FEW = sample(9, 12)


@pytest.mark.parametrize(
    "whitening, arguments, said",
    [
        (PCAWhitening(), [X[0]], r"matrix \(N, D\)"),
        (PCAWhitening(), [X[:1]], "1 vectors have no covariance"),
        (PCAWhitening(), [FEW], "span 8, too few to whiten 12: give dim=8"),
        (PCAWhitening(9), [FEW], "too few to whiten 9"),
        (PCAWhitening(13), [X], "dim=13: from 1 to 12"),
        (PCAWhitening(0), [X], "dim=0"),
        (PCAWhitening(), [np.full((50, 12), 0.3, np.float32)], "all equal"),
        (PCAWhitening(shrinkage=1), [np.full((50, 12), 0.3, np.float32)], "all equal"),
        (PCAWhitening(), [np.where(np.eye(240, 12) > 0, np.nan, X)], "row 0 is not finite"),
        (LearnedWhitening(), [X], "needs pairs"),
        (LearnedWhitening(), [X, []], "whole numbers"),
        (LearnedWhitening(), [X, [[0.5, 1.0]]], "whole numbers"),
        (LearnedWhitening(), [X, [[0, 1, 2]]], "whole numbers"),
        (LearnedWhitening(), [X, ([0, 1], [2])], "2 queries and 1 positives"),
        (LearnedWhitening(), [X, [[0, 1], [0, 240]]], r"pair 1 is \(0, 240\)"),
        (LearnedWhitening(), [X, [[0, -1]]], r"pair 0 is \(0, -1\)"),
        (LearnedWhitening(), [X, [[4, 4]]], r"pair 0 is \(4, 4\)"),
        (LearnedWhitening(pca=13), [X, PAIRS], "pca=13"),
        (LearnedWhitening(dim=6, pca=5), [X, PAIRS], "dim=6"),
        (LearnedWhitening(), [np.repeat(X, 2, axis=0), [[0, 1], [2, 3]]], "do not differ"),
        (LearnedWhitening(shrinkage=0), [X, PAIRS[:5]], "rank 3 of 12.*pca=3"),
    ],
)
def test_what_cannot_be_fitted(whitening, arguments, said):
    with pytest.raises(WhiteningError, match=said) as e:
        whitening.fit(*arguments)
    assert "\n" not in str(e.value)


def test_short_rank_is_told_and_mended():
    x, pairs = labelled(8, 3, 40)
    assert PCAWhitening(23).fit(x).rank_ == 23
    assert np.isfinite(PCAWhitening(shrinkage=0.1).fit(x).transform(x)).all()
    assert PCAWhitening(power=0).fit(x).projection_.shape == (40, 40)
    shrunk = LearnedWhitening().fit(x, pairs)
    assert shrunk.rank_ == 16 and np.isfinite(shrunk.transform(x)).all()
    assert LearnedWhitening(shrinkage=0, pca=16).fit(x, pairs).rank_ == 16
    with pytest.warns(UserWarning, match="rank 16 of 40"):
        LearnedWhitening(shrinkage="jitter").fit(x, pairs)


def test_transform_objects():
    with pytest.raises(WhiteningError, match="not fitted"):
        PCAWhitening().transform(X)
    with pytest.raises(WhiteningError, match="11 dimensions, but this whitening was fitted on 12"):
        PCAWhitening().fit(X).transform(X[:, :11])


def test_a_failed_fit_leaves_what_was():
    w = PCAWhitening().fit(X)
    before = w.transform(X)
    with pytest.raises(WhiteningError):
        w.fit(FEW)
    assert np.array_equal(w.transform(X), before)


# The judged set


@pytest.mark.parametrize(
    "fitted_on, evaluated",
    [
        ("tinytown", "tinytown"),
        ("TinyTown", "tinytown:seed=3"),
        ("oxford5k", "roxford5k"),
        ("rparis6k", ["tinytown", "paris6k"]),
    ],
)
def test_fitted_on_the_judged_set(fitted_on, evaluated):
    with pytest.raises(WhiteningError, match="allow_test_fit=True"):
        fit_whitening(PCAWhitening(), fitted_on, X, evaluated=evaluated)
    with pytest.warns(UserWarning, match="no estimate"):
        guard_fit(fitted_on, evaluated, allow_test_fit=True)


@pytest.mark.parametrize("evaluated", [None, [], "tinytown", ["photos", "oxford5k"]])
def test_fitted_on_another_set(evaluated, recwarn):
    w = fit_whitening(LearnedWhitening(), "tinytown_train", X, PAIRS, evaluated)
    assert w.fitted_on_ == "tinytown_train" and not len(recwarn)
    guard_fit(None, evaluated)
