"""Exact search: the order under ties, faiss's words, files that are whole, bad input."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from imret.core import ImretError, Ranking, StoreError, l2_normalize
from imret.search import FlatIndex, SearchError, TopK, top_k

SEEDS = st.integers(0, 2**32 - 1)


def oracle(x, queries, k):
    "A stable sort of all scores, padded; exact where all numbers are small and whole."
    scores = queries @ x.T + 0.0  # -0 is 0
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    pad = ((0, 0), (0, max(0, k - len(x))))
    scores = np.take_along_axis(scores, ids, axis=1)
    return np.pad(scores, pad, constant_values=-np.inf), np.pad(ids, pad, constant_values=-1)


def whole(rng, n, d, most=2):
    "Vectors of small whole numbers: sums are exact in any order, and equal scores abound."
    return rng.integers(-most, most + 1, (n, d)).astype(np.float32)


def filled(x):
    index = FlatIndex(x.shape[1])
    index.add(x)
    return index


def same(got, want):
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[0], want[0])


# --- the order


@settings(deadline=None, max_examples=150)
@given(
    SEEDS, st.integers(0, 3000), st.integers(0, 12), st.integers(1, 9), st.integers(1, 200),
    st.integers(0, 3),
)  # fmt: skip
def test_a_stable_sort_is_the_judge(seed, n, q, d, k, most):
    rng = np.random.default_rng(seed)
    x, queries = whole(rng, n, d, most), whole(rng, q, d, most)
    same(filled(x).search(queries, k), oracle(x, queries, k))


@pytest.mark.parametrize("queries", [1, 2, 6, 7, 100, 1500])
@pytest.mark.parametrize("k", [1, 10, 999, 20_000, 20_001])
def test_many_blocks_and_cores(queries, k):
    if queries * k > 5_000_000:
        queries = 250
    rng = np.random.default_rng(0)
    x, asked = whole(rng, 20_000, 8), whole(rng, queries, 8)
    same(top_k(x, asked, k), oracle(x, asked, k))


def orders(x, q):
    s = x @ q
    yield "worst first", np.argsort(s, kind="stable")
    yield "best first", np.argsort(-s, kind="stable")
    yield "good ones together", np.roll(np.argsort(-s, kind="stable"), len(s) // 3)


@pytest.mark.parametrize("queries", [1, 40])
def test_a_database_in_an_unlucky_order(queries):
    rng = np.random.default_rng(1)
    x, asked = whole(rng, 60_000, 6, most=9), whole(rng, queries, 6, most=9)
    for _, order in orders(x, asked[0]):
        same(top_k(x[order], asked, 20), oracle(x[order], asked, 20))


def test_a_database_of_copies_comes_back_in_its_own_order():
    x = np.ones((30_000, 4), np.float32)
    for q in (1, 3, 50):
        for k in (1, 7, 5000):
            ids = top_k(x, np.ones((q, 4), np.float32), k)[1]
            np.testing.assert_array_equal(ids, np.tile(np.arange(k), (q, 1)))


def test_zero_and_minus_zero_are_equal():
    x = np.array([[-0.0], [0.0], [-0.0], [1e-30]], np.float32)
    for q in (1, 9):
        scores, ids = filled(x).search(np.ones((q, 1)), 4)
        assert ids.tolist() == [[3, 0, 1, 2]] * q
        assert scores[0, 1:].tolist() == [0, 0, 0]


def test_scores_keep_every_bit():
    tiny, huge = np.float32(1e-45), np.float32(1e19)
    x = np.array([[tiny], [-tiny], [huge], [-huge], [1], [-1]], np.float32)
    scores, ids = filled(x).search(np.ones((1, 1)), 6)
    assert ids.tolist() == [[2, 4, 0, 1, 5, 3]]
    assert scores[0].tolist() == [float(huge), 1, float(tiny), -float(tiny), -1, -float(huge)]


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(2, 500), st.integers(1, 10))
def test_a_shorter_list_begins_the_longer_one(seed, n, q):
    rng = np.random.default_rng(seed)
    x, queries = whole(rng, n, 3), whole(rng, q, 3)
    longest = filled(x).search(queries, n)[1]
    for k in {1, n // 2, n - 1}:
        np.testing.assert_array_equal(filled(x).search(queries, k)[1], longest[:, :k])


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 500))
def test_permuting_the_database_permutes_ids_and_nothing_else(seed, n):
    rng = np.random.default_rng(seed)
    x = np.arange(n, dtype=np.float32)[:, None]  # distinct scores
    order = rng.permutation(n)
    before, after = filled(x), filled(x[order])
    queries = np.array([[1.0], [-2.0]])
    scores, ids = before.search(queries, n)
    same((scores, ids), (after.search(queries, n)[0], order[after.search(queries, n)[1]]))


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 400), st.integers(1, 20), st.integers(1, 50))
def test_blocks_may_come_in_any_order(seed, n, q, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 3, (n, q)).astype(np.float32)
    cuts = np.unique([0, *rng.integers(0, n, 6)])
    best = TopK(q, k)
    for i in rng.permutation(len(cuts)):
        best.see(np.ascontiguousarray(scores[cuts[i] : [*cuts, n][i + 1]]), cuts[i])
    same(best.result(), oracle(scores, np.eye(q, dtype=np.float32), k))


@pytest.mark.parametrize(("n", "d"), [(5000, 32), (300, 2048)])
@pytest.mark.parametrize("queries", [1, 5, 64, 300])
def test_faiss_agrees_where_scores_are_distinct(n, d, queries):
    rng = np.random.default_rng(2)
    x, asked = (l2_normalize(rng.standard_normal((m, d))) for m in (n, queries))
    index = filled(x)
    scores, ids = index.search(asked, 10)
    want, positions = index.to_faiss().search(asked, 10)
    np.testing.assert_allclose(scores, want, atol=1e-6)
    exact = np.take_along_axis(asked.astype(np.float64) @ x.T.astype(np.float64), ids, axis=1)
    np.testing.assert_allclose(scores, exact, atol=1e-6)
    differ = ids != positions  # only neighbours within a rounding
    assert np.abs(scores - want)[differ].max(initial=0) < 1e-6
    assert differ.mean() < 0.01


# --- many at once


def test_one_core_or_several_give_the_same():
    rng = np.random.default_rng(3)
    x, asked = whole(rng, 50_000, 16), whole(rng, 64, 16)
    several = top_k(x, asked, 30), top_k(x, asked[:3], 30)
    with threadpool_limits(1, user_api="blas"):
        one = top_k(x, asked, 30), top_k(x, asked[:3], 30)
    same(several[0], one[0])
    same(several[1], one[1])


def blas_threads():
    return [o["num_threads"] for o in threadpool_info() if o["user_api"] == "blas"]


def test_searches_from_many_threads_leave_the_number_of_threads_alone():
    rng = np.random.default_rng(4)
    x, asked = whole(rng, 20_000, 32), whole(rng, 40, 32)
    index, before = filled(x), blas_threads()
    want = oracle(x, asked, 9)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: index.search(asked, 9), range(12)):
            same(got, want)
    assert blas_threads() == before
    assert threading.active_count() < 20


# --- faiss's words


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(
    st.integers(0, 6), st.lists(st.integers(-2, 30), max_size=8), st.just("reset"),
), max_size=20))  # fmt: skip
def test_adding_and_removing_behave_as_a_list(steps):
    index, model, fresh = FlatIndex(2), [], 0
    peer = faiss.IndexFlatIP(2)
    for step in steps:
        if step == "reset":
            index.reset()
            peer.reset()
            model = []
        elif isinstance(step, int):
            new = [[fresh + i, 1.0] for i in range(step)]
            fresh += step
            model += new
            for o in (index, peer):
                o.add(np.array(new, np.float32).reshape(-1, 2))
        else:
            gone = {i for i in step if 0 <= i < len(model)}
            assert index.remove_ids(np.array(step, np.int64)) == len(gone)
            peer.remove_ids(np.array(step, np.int64))
            model = [v for i, v in enumerate(model) if i not in gone]
        assert index.ntotal == len(index) == len(model) == peer.ntotal
        np.testing.assert_array_equal(index.reconstruct_n(), np.reshape(model, (-1, 2)))
        if model:
            last = len(model) - 1
            np.testing.assert_array_equal(index.reconstruct(last), peer.reconstruct(last))
            want = np.argsort(-np.array(model)[:, 0], kind="stable")
            np.testing.assert_array_equal(index.search([[1.0, 0.0]], len(model))[1][0], want)


def test_the_words_of_faiss():
    index, peer = FlatIndex(3), faiss.IndexFlatIP(3)
    assert index.d == peer.d
    assert index.is_trained == peer.is_trained
    assert index.metric_type == peer.metric_type == faiss.METRIC_INNER_PRODUCT
    index.train(np.ones((2, 3)))
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for o in (index, peer):
        o.add(x)
        assert o.remove_ids(np.array([1, 1, 9, -1])) == 1
    assert index.ntotal == peer.ntotal == 3
    np.testing.assert_array_equal(index.reconstruct_n(1, 2), peer.reconstruct_n(1, 2))
    a, b = index.search(x[:1], 5), peer.search(x[:1], 5)
    np.testing.assert_array_equal(a[1], b[1])  # -1 behind the last
    assert a[0].dtype == b[0].dtype == np.float32
    assert a[1].dtype == b[1].dtype == np.int64
    assert np.isneginf(a[0][0, 3:]).all()


def test_rank_gives_a_ranking():
    rng = np.random.default_rng(5)
    x, asked = whole(rng, 50, 4), whole(rng, 3, 4)
    index = filled(x)
    everything = index.rank(asked)
    assert isinstance(everything, Ranking)
    assert everything.ids.shape == (3, 50)
    want = Ranking.from_scores(asked @ x.T)
    same((everything.scores, everything.ids), (want.scores, want.ids))
    np.testing.assert_array_equal(index.rank(asked, 7).ids, want.top(7).ids)
    assert index.rank(asked, 60).ids[0, 50:].tolist() == [-1] * 10


def test_an_empty_index_answers_with_nothing():
    index = FlatIndex(4)
    for q in (0, 1, 20):
        scores, ids = index.search(np.ones((q, 4)), 3)
        assert ids.shape == scores.shape == (q, 3)
        assert (ids == -1).all()
        assert np.isneginf(scores).all()
        assert index.rank(np.ones((q, 4))).ids.shape == (q, 0)
    index.add(np.empty((0, 4)))
    assert index.ntotal == index.remove_ids([0]) == index.remove_ids([]) == 0
    assert index.reconstruct_n().shape == (0, 4)


@pytest.mark.parametrize("make", [
    lambda x: x.astype(np.float64), lambda x: x.astype(np.float16), lambda x: x.astype(np.int8),
    np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2], lambda x: x.tolist(),
    lambda x: torch.from_numpy(x.copy()), lambda x: torch.from_numpy(x.copy()).bfloat16(),
    lambda x: torch.from_numpy(x.copy()).double().requires_grad_(),
])  # fmt: skip
def test_vectors_of_any_kind(make):
    rng = np.random.default_rng(6)
    x, asked = whole(rng, 40, 5), whole(rng, 8, 5)
    index = FlatIndex(5)
    index.add(make(x))
    same(index.search(make(asked), 40), oracle(x, asked, 40))


def test_what_was_added_is_a_copy():
    x = np.ones((2, 3), np.float32)
    index = filled(x)
    x[:] = 5
    index.reconstruct(0)[:] = 7
    index.reconstruct_n()[:] = 7
    assert index.reconstruct_n().tolist() == [[1, 1, 1]] * 2
    with pytest.raises(ValueError, match="read-only"):
        index.vectors[0] = 7


# --- bad input

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("x", "why"), [
    ([1.0, 2], r"one vector is x\[None\]"),
    ([[1.0, 2, 3]], r"the shape \(n, 2\) is needed, not \(1, 3\)"),
    ([[[1.0, 2]]], "the shape"),
    ([[1, 1], [0, NAN]], "row 1 holds NaN"),
    ([[1, 1], [1, 2], [-INF, 0]], "row 2"),
    ([[1e25, 0]], "overflow"),
    ([[1e300, 0]], "overflow"),
    ([["a", "b"]], "real numbers"),
    ([[1j, 2]], "real numbers"),
    ([[None, 2]], "real numbers"),
])  # fmt: skip
def test_vectors_that_cannot_be_searched(x, why):
    index = filled(np.ones((3, 2)))
    for call in (index.add, lambda x: index.search(x, 1)):
        with pytest.raises(SearchError, match=why) as e:
            call(np.array(x))
        assert isinstance(e.value, ImretError)
        assert isinstance(e.value, ValueError)
        assert "\n" not in str(e.value)
    assert index.ntotal == 3


def test_ragged_lists_are_told():
    with pytest.raises(SearchError, match="vectors to add"):
        FlatIndex(2).add([[1, 2], [3]])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None, "3"])
def test_a_k_that_is_none(k):
    with pytest.raises(SearchError, match="k is a whole number of at least 1"):
        filled(np.ones((3, 2))).search(np.ones((1, 2)), k)


@pytest.mark.parametrize("dim", [0, -1, 2.0, None])
def test_a_dim_that_is_none(dim):
    with pytest.raises(SearchError, match="dim is a whole number"):
        FlatIndex(dim)


def test_positions_that_are_not_there():
    index = filled(np.ones((3, 2)))
    for n0, ni in [(3, 1), (-1, 1), (2, 2), (0, -2)]:
        with pytest.raises(SearchError, match="index of 3"):
            index.reconstruct_n(n0, ni)
    for i in (3, -1):
        with pytest.raises(SearchError, match="index of 3"):
            index.reconstruct(i)
    with pytest.raises(SearchError, match="whole numbers"):
        index.remove_ids([0.5])


def test_k_may_be_a_numpy_integer():
    assert filled(np.ones((3, 2))).search(np.ones((1, 2)), np.int64(2))[1].tolist() == [[0, 1]]


# --- files


@pytest.mark.parametrize("mmap", [False, True])
def test_write_then_read(tmp_path, mmap):
    rng = np.random.default_rng(7)
    x, asked = whole(rng, 500, 6), whole(rng, 9, 6)
    path = tmp_path / "index.npy"
    index = filled(x)
    index.write(path)
    assert os.listdir(tmp_path) == ["index.npy"]
    np.testing.assert_array_equal(np.load(path), x)
    again = FlatIndex.read(path, mmap=mmap)
    for q in (1, 9):
        same(again.search(asked[:q], 20), index.search(asked[:q], 20))
    again.add(x[:3])  # the file stays as it is
    assert again.remove_ids([0, 1]) == 2
    again.add(np.empty((0, 6)))
    np.testing.assert_array_equal(again.reconstruct_n(), np.concatenate([x[2:], x[:3]]))
    np.testing.assert_array_equal(np.load(path), x)


def test_a_mapped_index_may_be_written_over_itself(tmp_path):
    path = tmp_path / "index.npy"
    filled(np.eye(4)).write(path)
    index = FlatIndex.read(path, mmap=True)
    index.remove_ids([0])
    index.write(path)
    np.testing.assert_array_equal(np.load(path), np.eye(4)[1:])
    mapped = FlatIndex.read(path, mmap=True)
    mapped.write(path)
    np.testing.assert_array_equal(mapped.reconstruct_n(), np.load(path))


def test_an_empty_index_is_kept(tmp_path):
    FlatIndex(7).write(tmp_path / "e.npy")
    index = FlatIndex.read(tmp_path / "e.npy")
    assert (index.d, index.ntotal) == (7, 0)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "index.npy"
    filled(np.eye(3)).write(path)

    def full(*args):
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as m:
            m.setattr(os, step, full)
            with pytest.raises(StoreError, match="No space left"):
                filled(np.ones((5, 3))).write(path)
        assert os.listdir(tmp_path) == ["index.npy"]
        np.testing.assert_array_equal(np.load(path), np.eye(3))


def test_files_that_are_no_index(tmp_path):
    def saved(name, *arrays, **kw):
        np.save(tmp_path / name, *arrays, **kw)
        return tmp_path / name

    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").touch()
    whole_file = saved("cut.npy", np.ones((100, 8), np.float32)).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole_file[:-50])
    np.savez(tmp_path / "zip.npz", a=np.ones((2, 2)))
    saved("object.npy", np.array([{}, []], object), allow_pickle=True)
    saved("three.npy", np.ones((2, 2, 2), np.float32))
    saved("flat.npy", np.ones(5, np.float32))
    saved("zero.npy", np.ones((5, 0), np.float32))
    names = ["text", "empty", "cut", "object", "three", "flat", "zero", "missing"]
    for path in [tmp_path / f"{o}.npy" for o in names] + [tmp_path / "zip.npz", tmp_path]:
        for mmap in (False, True):
            with pytest.raises(StoreError, match=path.name) as e:
                FlatIndex.read(path, mmap=mmap)
            assert "\n" not in str(e.value)
    half = saved("half.npy", np.ones((5, 2), np.float16))
    assert FlatIndex.read(half).ntotal == 5
    with pytest.raises(StoreError, match="only rows of float32"):
        FlatIndex.read(half, mmap=True)
    with pytest.raises(StoreError, match="nan.npy: .*row 0 holds NaN"):
        FlatIndex.read(saved("nan.npy", np.full((2, 2), np.nan, np.float32)))
    with pytest.raises(StoreError, match="cannot write"):
        FlatIndex(2).write(tmp_path / "no" / "such" / "folder.npy")
