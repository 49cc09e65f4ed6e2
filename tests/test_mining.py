"""Mining against loops and full rankings, pools and samplers against what they promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imret.core import ImretError
from imret.datasets.splits import TrainingPairs
from imret.nets import create_embedder
from imret.training.mining import HardNegatives, RandomNegatives, first_of_clusters, hardest
from imret.training.samplers import ClassBatches, RandomBatches, semihard_triplets
from imret.training.tuples import TuplePool, seeded

# --- the oracle


def mined_by_loop(query, own, vectors, clusters, n):
    "Walk down the full ranking of one query."
    order = np.argsort(-(vectors @ query), kind="stable")
    taken, out = {own}, []
    for i in order:
        if clusters[i] not in taken and len(out) < n:
            taken.add(clusters[i])
            out.append(i)
    return out


def whole_numbers(rng, n, dim):
    "Vectors whose products are exact, so that many scores tie."
    return rng.integers(-2, 3, (n, dim)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(8, 300),
    groups=st.integers(5, 40),
    n=st.integers(1, 4),
    block=st.integers(1, 50),
)
def test_hardest_is_a_walk_down_the_ranking(seed, size, groups, n, block):
    rng = np.random.default_rng(seed)
    vectors, queries = whole_numbers(rng, size, 4), whole_numbers(rng, 20, 4)
    clusters, own = rng.integers(0, groups, size), rng.integers(0, groups, 20)
    if len(np.unique(clusters)) <= n:
        return
    places, scores = hardest(queries, own, vectors, clusters, n, block)
    for q in range(20):
        wanted = mined_by_loop(queries[q], own[q], vectors, clusters, n)
        assert places[q].tolist() == wanted
        assert scores[q].tolist() == (vectors[wanted] @ queries[q]).tolist()


def test_hardest_finds_the_last_cluster_below_a_thousand_look_alikes():
    vectors = np.ones((5000, 3), np.float32)
    clusters = np.zeros(5000, int)
    clusters[[4000, 4999]] = 1, 2
    places, _ = hardest(vectors[:2], np.array([0, 9]), vectors, clusters, 2)
    assert places.tolist() == [[4000, 4999], [0, 4000]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 6))
def test_first_of_clusters(seed, columns, n):
    rng = np.random.default_rng(seed)
    clusters, own = rng.integers(0, 5, (9, columns)), rng.integers(0, 5, 9)
    found = first_of_clusters(clusters, own, n)
    for row, mine, got in zip(clusters, own, found, strict=True):
        seen, wanted = {mine}, []
        for i, c in enumerate(row):
            if c not in seen and len(wanted) < n:
                seen.add(c)
                wanted.append(i)
        assert got.tolist() == wanted + [-1] * (n - len(wanted))


# --- with a net


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create_embedder("resnet18-gem", pretrained=False)


@pytest.fixture(scope="module")
def pool():
    "60 images of noise in 12 clusters of five, and four images of none."
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)) for _ in range(64)]
    clusters = [*np.repeat(np.arange(12), 5), *[-1] * 4]
    queries = np.arange(60)
    positives = [[5 * (q // 5) + (q + 1) % 5, 5 * (q // 5) + (q + 2) % 5] for q in queries]
    return TuplePool("noise", images, clusters, queries, positives)


SMALL = {"n": 3, "queries": 25, "pool": 40, "seed": 4}
HARD = {**SMALL, "image_size": 32}


def equal(a, b):
    return all((getattr(a, k) == getattr(b, k)).all() for k in ("query", "positive", "negatives"))


@pytest.mark.parametrize("epoch", range(3))
@pytest.mark.parametrize("kind", [HardNegatives, RandomNegatives])
def test_promises(net, pool, kind, epoch):
    found = kind(**(HARD if kind is HardNegatives else SMALL)).mine(
        net, pool, epoch, progress=False
    )
    drawn = np.sort(seeded(4, epoch, 1).permutation(60)[:40])
    assert found.negatives.shape == (25, 3) and len(set(found.query)) == 25
    for q, p, negatives in zip(found.query, found.positive, found.negatives, strict=True):
        assert p in pool.positives[q]
        assert len({pool.clusters[q], *pool.clusters[negatives]}) == 4
        assert set(negatives) <= set(drawn) and (pool.clusters[negatives] >= 0).all()


def test_mined_as_by_a_loop_over_descriptors(net, pool):
    from imret.features import extract

    found = HardNegatives(**HARD).mine(net, pool, 2, progress=False)
    x = extract(net, pool.images, image_size=32, progress=False)
    drawn = np.sort(seeded(4, 2, 1).permutation(60)[:40])
    for q, negatives, scores, far in zip(
        found.query, found.negatives, found.scores, found.distances, strict=True
    ):
        wanted = mined_by_loop(x[q], pool.clusters[q], x[drawn], pool.clusters[drawn], 3)
        assert np.allclose(x[negatives] @ x[q], x[drawn[wanted]] @ x[q], atol=1e-6)
        assert np.allclose(scores, x[negatives] @ x[q], atol=1e-5)
        assert np.allclose(far, np.linalg.norm(x[negatives] - x[q], axis=1), atol=1e-5)
    assert found.hardness == pytest.approx(found.distances.mean())
    assert found.table().shape == (75, 6)


def test_seeds_and_epochs(net, pool):
    miner = HardNegatives(**HARD)
    first = miner.mine(net, pool, 1, progress=False)
    assert equal(first, HardNegatives(**HARD).mine(net, pool, 1, progress=False))
    assert not equal(first, miner.mine(net, pool, 2, progress=False))
    other = HardNegatives(**{**HARD, "seed": 5}).mine(net, pool, 1, progress=False)
    assert not equal(first, other)
    random = RandomNegatives(**SMALL).mine(None, pool, 1)
    assert (random.query == first.query).all() and (random.positive == first.positive).all()
    assert np.isnan(random.hardness) and not np.isnan(first.hardness)


def test_the_net_as_it_is_now(net, pool):
    "A step of an optimizer changes what is mined; the net's mode and gradients stay."
    from copy import deepcopy

    trained = deepcopy(net).train()
    miner = HardNegatives(**HARD)
    before = miner.mine(trained, pool, 0, progress=False)
    assert trained.training and all(p.requires_grad for p in trained.parameters())
    optimizer = torch.optim.SGD(trained.parameters(), 1.0)
    trained(torch.randn(4, 3, 32, 32)).square().sum(dim=0).max().backward()
    optimizer.step()
    after = miner.mine(trained, pool, 0, progress=False)
    assert (before.query == after.query).all()
    assert not np.allclose(before.scores, after.scores)


def test_second_descriptor(net, pool):
    rng = np.random.default_rng(1)
    g = rng.normal(size=(64, 6)).astype(np.float32)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    by_array = HardNegatives(**HARD, extra=g, beta=0.7).mine(net, pool, 0, progress=False)
    near = np.einsum("qd,qnd->qn", g[by_array.query], g[by_array.negatives])
    assert np.allclose(by_array.scores, 1 - by_array.distances**2 / 2 + 0.7 * near, atol=1e-5)
    place = {id(image): i for i, image in enumerate(pool.images)}
    called = HardNegatives(**HARD, extra=lambda o: g[[place[id(i)] for i in o]], beta=0.7)
    assert equal(by_array, called.mine(net, pool, 0, progress=False))
    alone = HardNegatives(**HARD, extra=g, beta=1e4).mine(net, pool, 0, progress=False)
    drawn = np.sort(seeded(4, 0, 1).permutation(60)[:40])
    for q, negatives in zip(alone.query, alone.negatives, strict=True):
        wanted = mined_by_loop(g[q], pool.clusters[q], g[drawn], pool.clusters[drawn], 3)
        assert negatives.tolist() == drawn[wanted].tolist()
    off = HardNegatives(**HARD, extra=g).mine(net, pool, 0, progress=False)
    assert equal(off, HardNegatives(**HARD).mine(net, pool, 0, progress=False))


def test_adaptive_weight_is_the_last_loss(net, pool):
    g = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)

    def mined(beta, last):
        return HardNegatives(**HARD, extra=g, beta=beta).mine(net, pool, 0, last, progress=False)

    assert equal(mined("adaptive", None), mined(1.0, None))
    assert equal(mined("adaptive", 0.3), mined(0.3, 5.0))
    assert mined("adaptive", 0.3).beta == 0.3
    assert equal(mined("adaptive", 0.0), mined(0.0, None))
    with pytest.raises(ImretError, match="needs a loss from 0, not nan"):
        mined("adaptive", float("nan"))


@pytest.mark.parametrize("kind", [HardNegatives, RandomNegatives])
def test_clusters_run_out(net, pool, kind):
    size = {"image_size": 32} if kind is HardNegatives else {}
    with pytest.raises(ImretError, match="12 negatives .* need 12 clusters .* are of 12 clusters"):
        kind(n=12, pool=64, **size).mine(net, pool)
    with pytest.raises(ImretError, match="the 3 images drawn are of"):
        kind(n=5, pool=3, **size).mine(net, pool)
    found = kind(n=11, queries=5, **size).mine(net, pool, progress=False)  # just enough
    for q, negatives in zip(found.query, found.negatives, strict=True):
        assert {pool.clusters[q], *pool.clusters[negatives]} == set(range(12))


def test_faults(net, pool):
    for wrong in ({"n": 0}, {"n": 1.5}, {"queries": 0}, {"pool": True}, {"seed": -1}):
        with pytest.raises(ImretError, match=f"{next(iter(wrong))} is a whole number from"):
            HardNegatives(**wrong)
    g = np.ones((64, 2), np.float32)
    with pytest.raises(ImretError, match=r"extra gives \(63, 2\), but \(64, D2\) is needed"):
        HardNegatives(**HARD, extra=g[1:], beta=1).mine(net, pool, progress=False)
    with pytest.raises(ImretError, match="extra of .* is not finite"):
        HardNegatives(**HARD, extra=g * np.nan, beta=1).mine(net, pool, progress=False)
    from copy import deepcopy

    broken = deepcopy(net)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(ImretError, match="epoch 7: .* not finite .* last good checkpoint"):
        HardNegatives(**HARD).mine(broken, pool, 7, progress=False)


def test_boxes_are_cut_out(net):
    "With boxes, what lies outside of them changes nothing."
    rng = np.random.default_rng(2)
    inner = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(12)]
    labels = np.repeat(np.arange(6), 2)
    bare = TuplePool.from_labels(inner, labels)
    framed = [
        np.pad(a, ((8, 8), (8, 8), (0, 0)), constant_values=9 * i) for i, a in enumerate(inner)
    ]
    boxed = TuplePool.from_labels(framed, labels, [(8, 8, 40, 40)] * 12)
    miner = HardNegatives(n=2, queries=12, image_size=32)
    a, b = (miner.mine(net, p, progress=False) for p in (bare, boxed))
    assert equal(a, b) and np.allclose(a.scores, b.scores)


# --- pools


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=60), st.integers(0, 9))
def test_pool_from_labels(labels, seed):
    if max(labels.count(c) for c in labels) < 2:
        return
    pool = TuplePool.from_labels([f"{i}.jpg" for i in range(len(labels))], labels)
    asks = [i for i, c in enumerate(labels) if labels.count(c) > 1]
    assert pool.queries.tolist() == asks
    for q, p in zip(pool.queries, pool.positives, strict=True):
        assert p.tolist() == [i for i, c in enumerate(labels) if c == labels[q] and i != q]
    queries, positives = pool.draw(7, seed, 3)
    assert len(set(queries)) == min(7, len(asks))
    assert all(labels[q] == labels[p] and q != p for q, p in zip(queries, positives, strict=True))


def test_split_keeps_clusters_whole(pool):
    for seed in range(5):
        train, validation = pool.split(0.3, seed)
        assert len(np.unique(train.clusters)) == 8 and len(np.unique(validation.clusters)) == 4
        assert not set(train.clusters) & set(validation.clusters)
        assert len(train.images) + len(validation.images) == 60  # those of no cluster are out
        for part in (train, validation):
            for q, answers in zip(part.queries, part.positives, strict=True):
                before = next(i for i, o in enumerate(pool.images) if o is part.images[q])
                wanted = [pool.images[i] for i in pool.positives[before]]
                assert all(part.images[i] is w for i, w in zip(answers, wanted, strict=True))
    with pytest.raises(ImretError, match="each of the two pools needs one"):
        pool.split(1.0)


def test_every_positive_gets_its_turn(pool):
    drawn = {tuple(o) for e in range(20) for o in zip(*pool.draw(60, 0, e), strict=True)}
    assert drawn == {(q, p) for q, ps in zip(pool.queries, pool.positives, strict=True) for p in ps}


def test_pool_faults():
    good = {"images": list("abcd"), "clusters": [0, 0, 1, 1], "queries": [0], "positives": [[1]]}
    TuplePool("x", **good)
    for change, words in (
        ({"clusters": [0, 0, 1]}, "3 clusters, but 4 are needed"),
        ({"boxes": [None]}, "1 boxes, but 4 are needed"),
        ({"positives": []}, "0 positives, but 1 are needed"),
        ({"positives": [[]]}, "x: query 0 .* has no positive|whole numbers"),
        ({"positives": [[4]]}, "positions 0 … 4, but there are 4"),
        ({"positives": [[2]]}, "one of another cluster"),
        ({"positives": [[0]]}, "its own positive"),
        ({"clusters": [0.5, 0, 1, 1]}, "whole numbers"),
    ):
        with pytest.raises(ImretError, match=words):
            TuplePool("x", **{**good, **change})


def test_pool_from_sfm_merges_pairs():
    pairs = TrainingPairs("s", list("abcde"), [3, 3, 3, 8, 8], [1, 4, 1, 1], [0, 3, 2, 0])
    pool = TuplePool.from_sfm(pairs)
    assert pool.queries.tolist() == [1, 4]
    assert [p.tolist() for p in pool.positives] == [[0, 2], [3]]


# --- samplers


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 9), min_size=3, max_size=12),
    classes=st.integers(1, 3),
    images=st.integers(2, 7),
    epoch=st.integers(0, 3),
)
def test_class_batches_are_balanced(sizes, classes, images, epoch):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    batches = ClassBatches(labels.tolist(), classes, images, seed=1)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches) == max(1, len(labels) // (classes * images))
    for batch in found:
        names, count = np.unique(labels[batch], return_counts=True)
        assert len(names) == classes and set(count) == {images}
        for name in names:
            each = np.unique(np.array(batch)[labels[batch] == name], return_counts=True)[1]
            assert each.max() - each.min() <= 1
            assert len(each) == min(images, sizes[name])
    again = ClassBatches(labels.tolist(), classes, images, seed=1, epoch=epoch)
    assert list(again) == found == list(batches)


def test_every_class_has_its_turn():
    labels = np.repeat(np.arange(20), 8)
    batches = ClassBatches(labels, classes=10, images=8, seed=0)
    count = np.zeros(20, int)
    for epoch in range(200):
        batches.set_epoch(epoch)
        for batch in batches:
            count[np.unique(labels[batch])] += 1
    assert count.sum() == 200 * 2 * 10
    assert 150 < count.min() <= count.max() < 250  # 200 are expected, with a deviation of 10


def test_class_batches_faults():
    with pytest.raises(ImretError, match="2 classes have one image, such as image 2 of class 'b'"):
        ClassBatches(list("aabcc") + ["d"], 1)
    kept = ClassBatches(list("aabcc") + ["d"], 2, 2, drop_single=True)
    assert sorted(next(iter(kept))) == [0, 1, 3, 4]
    with pytest.raises(ImretError, match="takes 3 classes, but 2 have two images or more"):
        ClassBatches(list("aabcc"), 3, drop_single=True)
    with pytest.raises(ImretError, match="images is a whole number from 2, not 1"):
        ClassBatches(list("aabb"), 2, 1)
    with pytest.raises(ImretError, match="from 0, not -1"):
        kept.set_epoch(-1)


def test_batches_of_a_loader():
    "In a loader, with workers and without, the order is the sampler's."
    from torch.utils.data import DataLoader

    batches = ClassBatches(np.repeat(np.arange(5), 6), classes=3, images=4, seed=2)
    # a fork of this process, which has loaded every engine, can crash: workers start afresh
    for how in ({}, {"num_workers": 1, "multiprocessing_context": "spawn"}):
        loader = DataLoader(torch.arange(30), batch_sampler=batches, **how)
        assert [b.tolist() for b in loader] == list(batches)
    order = RandomBatches(23, 5, seed=3, epoch=1)
    assert sorted(i for b in order for i in b) == list(range(23))
    assert [len(b) for b in order] == [5, 5, 5, 5, 3] and len(order) == 5


def semihard_by_loops(x, labels, margin):
    out = []
    for a in range(len(x)):
        for p in range(len(x)):
            if a == p or labels[a] != labels[p]:
                continue
            near, best = np.square(x[a] - x[p]).sum(), None
            for n in range(len(x)):
                far = np.square(x[a] - x[n]).sum()
                if labels[n] != labels[a] and near < far < near + margin:
                    if best is None or far < best[0]:
                        best = far, n
            if best:
                out.append((a, p, best[1]))
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 24), st.integers(1, 40))
def test_semihard_against_loops(seed, size, margin):
    rng = np.random.default_rng(seed)
    x, labels = whole_numbers(rng, size, 3), rng.integers(0, 3, size)
    if len(np.unique(labels)) < 2 or np.bincount(labels).max() < 2:
        return
    margin = margin + 0.5  # squares of whole numbers are whole numbers: none on the border
    found = semihard_triplets(torch.from_numpy(x), torch.from_numpy(labels), margin)
    # squares that are equal may differ in the last bit after a root: compare by what was chosen
    wanted = semihard_by_loops(x, labels, margin)
    got = list(zip(*(o.tolist() for o in found), strict=True))
    near = {(a, p): np.square(x[a] - x[n]).sum() for a, p, n in wanted}
    assert {(a, p): np.square(x[a] - x[n]).sum() for a, p, n in got} == near


def test_semihard_are_those_of_pytorch_metric_learning():
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.miners import TripletMarginMiner

    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(40, 8), dim=1)
    labels = torch.arange(40) % 5
    theirs = TripletMarginMiner(0.3, "semihard", distance=LpDistance(power=2))(x, labels)
    every = set(zip(*(o.tolist() for o in theirs), strict=True))
    found = list(zip(*(o.tolist() for o in semihard_triplets(x, labels, 0.3)), strict=True))
    assert set(found) <= every
    assert {o[:2] for o in found} == {o[:2] for o in every}  # a pair has one where there is any
    square = torch.cdist(x, x).square()
    for a, p, n in found:
        others = [square[a, k] for b, q, k in every if (b, q) == (a, p)]
        assert square[a, n] <= min(others) + 1e-6


def test_semihard_faults_and_gradients():
    x = torch.randn(6, 4, requires_grad=True)
    for labels in (torch.zeros(6), torch.arange(6)):
        with pytest.raises(ImretError, match="draw it with ClassBatches"):
            semihard_triplets(x, labels.long())
    found = semihard_triplets(x, torch.tensor([0, 0, 0, 1, 1, 1]), 1e-9)
    assert all(not o.requires_grad and o.dtype == torch.int64 and o.shape == (0,) for o in found)
