"""Losses against loops, against pytorch-metric-learning, and at the edges.

Edges are equal vectors, vectors of zeros, batches of one class, and NaN."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from sklearn.metrics import average_precision_score
from torch import nn

from imret.core import ImretError, SpecError
from imret.training import (
    LOSSES,
    TrainingError,
    TripletLoss,
    create_loss,
    hash_centres,
    list_losses,
    register_loss,
    staged_backward,
)
from imret.training.batch_losses import distances, triplet_counts

DOUBLE = torch.float64


def tuples(b=4, n=3, d=5, seed=0, dtype=DOUBLE) -> list[torch.Tensor]:
    "Queries, positives and negatives of length one."
    g = torch.Generator().manual_seed(seed)
    shapes = (b, d), (b, d), (b, n, d)
    return [F.normalize(torch.randn(s, generator=g, dtype=dtype), dim=-1) for s in shapes]


def batch(n=12, d=4, classes=4, seed=0, dtype=DOUBLE) -> tuple[torch.Tensor, torch.Tensor]:
    "Embeddings of no certain length, and labels in no order."
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n)[torch.randperm(n, generator=g)] % classes
    return torch.randn(n, d, generator=g, dtype=dtype), labels


def agree(ours, theirs, *inputs: torch.Tensor, tolerance: float = 1e-9) -> None:
    "Two functions have one value and one gradient."
    results = []
    for f in (ours, theirs):
        x = [o.clone().requires_grad_() for o in inputs]
        value = f(*x)
        results.append((value, *torch.autograd.grad(value, x)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- by loops, from the formulas


def by_tuple(of_one):
    "A loss of one tuple, summed over the tuples of a batch."
    return lambda q, p, n: sum(of_one(q[b], p[b], n[b]) for b in range(len(q)))


def contrastive(margin=0.7, eps=1e-6):
    def one(q, p, n):
        far = [(q - o + eps).square().sum().sqrt() for o in n]
        near = (q - p + eps).square().sum()
        return near / 2 + sum(torch.clamp(margin - d, min=0) ** 2 / 2 for d in far)

    return by_tuple(one)


def triplet(margin, power):
    def one(q, p, n):
        near, far = (q - p).norm() ** power, [(q - o).norm() ** power for o in n]
        return sum(torch.clamp(near - d + margin, min=0) for d in far)

    return lambda q, p, n: by_tuple(one)(q, p, n) / len(q)


def second_order(q, p, n, eps=1e-12):
    def one(q, p, n):
        return sum(((q - o).square().sum() - (p - o).square().sum()) ** 2 for o in n)

    return (by_tuple(one)(q, p, n) + eps).sqrt() / len(q)


def softmax_tuple(temperature):
    def one(q, p, n):
        scores = torch.stack([q @ p, *(q @ o for o in n)]) / temperature
        return scores.exp().sum().log() - scores[0]

    return lambda q, p, n: by_tuple(one)(q, p, n) / len(q)


TUPLE = {
    "contrastive": contrastive(),
    "contrastive:margin=1.3": contrastive(1.3),
    "triplet": triplet(0.1, 2),
    "triplet:margin=1.25": triplet(1.25, 2),
    "triplet:squared=false,margin=0.3,eps=0": triplet(0.3, 1),
    "sos": second_order,
    "softmax_tuple": softmax_tuple(1),
    "softmax_tuple:temperature=0.1": softmax_tuple(0.1),
}


@pytest.mark.parametrize("name", TUPLE)
def test_tuple_losses_by_loops(name):
    for seed in range(3):
        agree(create_loss(name), TUPLE[name], *tuples(seed=seed))


def test_sos_is_added_with_its_weight():
    loss = create_loss("sos", first="triplet", weight=10, margin=1.25)
    agree(loss, lambda *x: triplet(1.25, 2)(*x) + 10 * second_order(*x), *tuples())
    summed = create_loss("sos:first=contrastive,weight=5,margin=0.9")
    agree(summed, lambda *x: contrastive(0.9)(*x) + 5 * second_order(*x), *tuples())


def lifted(labels, margin=1.0):
    def loss(x):
        terms = []
        for i, j in itertools.combinations(range(len(x)), 2):
            if labels[i] == labels[j]:
                ends = [(e, k) for e in (i, j) for k in range(len(x)) if labels[k] != labels[i]]
                total = sum(torch.exp(margin - (x[e] - x[k]).norm()) for e, k in ends)
                terms.append(torch.clamp(total.log() + (x[i] - x[j]).norm(), min=0) ** 2)
        return sum(terms) / (2 * len(terms))

    return loss


def all_triplets(labels):
    "Anchor, positive after it, negative."
    every = itertools.product(range(len(labels)), repeat=3)
    return [t for t in every if t[0] < t[1] and labels[t[0]] == labels[t[1]] != labels[t[2]]]


def triplet_hashing(labels, margin):
    def loss(x):
        terms = [
            torch.clamp((x[a] - x[p]).square().sum() - (x[a] - x[n]).square().sum() + margin, min=0)
            for a, p, n in all_triplets(labels.tolist())
        ]
        return sum(terms) / len(terms)

    return loss


def order_aware(labels, margin):
    "Each ranking sorted, each swap carried out."

    def ap(right):
        hits = [k for k, r in enumerate(right, start=1) if r]
        return sum(i / k for i, k in enumerate(hits, start=1)) / len(hits)

    def loss(x):
        total, anchors = 0, 0
        for a in range(len(x)):
            others = [i for i in range(len(x)) if i != a]
            others.sort(key=lambda i: (x[a] - x[i]).square().sum().item())
            right = [bool(labels[i] == labels[a]) for i in others]
            anchors += any(right)
            for p, n in itertools.product(range(len(others)), repeat=2):
                if right[p] and not right[n]:
                    swapped = list(right)
                    swapped[p], swapped[n] = False, True
                    near, far = ((x[a] - x[others[i]]).square().sum() for i in (p, n))
                    hinge = torch.clamp(near - far + margin, min=0)
                    total = total + abs(ap(swapped) - ap(right)) * hinge**2
        return total / anchors

    return loss


@pytest.mark.parametrize("seed", range(3))
def test_batch_losses_by_loops(seed):
    x, labels = batch(seed=seed)
    agree(lambda x: create_loss("lifted_structured")(x, labels), lifted(labels), x)
    agree(lambda x: create_loss("lifted_structured", margin=0.2)(x, labels), lifted(labels, 0.2), x)
    for margin in (0.5, 3, 40):
        ours = create_loss("triplet_hashing", margin=margin)
        agree(lambda x, f=ours: f(x, labels), triplet_hashing(labels, margin), x)
        ours = create_loss("order_aware", margin=margin, block=200)
        agree(lambda x, f=ours: f(x, labels), order_aware(labels, margin), x)


@pytest.mark.parametrize(("bits", "margin"), [(16, 8), (64, 20)])
def test_margin_of_bits(bits, margin):
    x, labels = batch(d=bits)
    same = create_loss("triplet_hashing", margin=margin)(x, labels)
    assert create_loss("triplet_hashing")(x, labels) == same


def ranked(x, q, labels) -> tuple[torch.Tensor, list[bool]]:
    "Cosines of all others with a query, and whether each is of its class."
    unit = x / x.norm(dim=1, keepdim=True)
    others = [j for j in range(len(x)) if j != q]
    return unit[others] @ unit[q], [bool(labels[j] == labels[q]) for j in others]


def mean_over_queries(of_one, labels):
    "One minus the mean over the queries that have a positive."

    def loss(x):
        found = [
            of_one(*ranked(x, q, labels)) for q in range(len(x)) if sum(labels == labels[q]) > 1
        ]
        return 1 - sum(found) / len(found)

    return loss


def binned_ap(bins):
    def one(s, right):
        step, total, every, ap = 2 / (bins - 1), 0, 0, 0
        for m in range(bins):
            shares = torch.clamp(1 - (s - (1 - m * step)).abs() / step, min=0)
            here = sum(shares[k] for k in range(len(s)) if right[k])
            total, every = total + here, every + shares.sum()
            ap = ap + here * total / torch.clamp(torch.as_tensor(every), min=1e-16)
        return ap / sum(right)

    return one


def smoothed_ap(temperature):
    def one(s, right):
        positives, ap = [k for k in range(len(s)) if right[k]], 0
        for i in positives:
            before = {
                j: torch.sigmoid((s[j] - s[i]) / temperature) for j in range(len(s)) if j != i
            }
            ahead = sum(v for j, v in before.items() if right[j])
            ap = ap + (1 + ahead) / (1 + sum(before.values()))
        return ap / len(positives)

    return one


def hashnet(labels, beta, alpha):
    def loss(x):
        h, terms = torch.tanh(beta * x), {True: [], False: []}
        for i, j in itertools.combinations(range(len(x)), 2):
            odds, same = alpha * h[i] @ h[j], bool(labels[i] == labels[j])
            terms[same].append(torch.log1p(odds.exp()) - same * odds)
        pairs = sum(map(len, terms.values()))
        return sum(sum(t) * pairs / len(t) for t in terms.values()) / pairs

    return loss


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_by_loops(seed):
    x, labels = batch(seed=seed, classes=5)
    labels[labels == 4] = torch.arange(10, 10 + (labels == 4).sum())  # alone: they ask nothing
    for bins in (2, 5, 20):
        ours = create_loss("ap", bins=bins)
        agree(lambda x, f=ours: f(x, labels), mean_over_queries(binned_ap(bins), labels), x)
    for t in (0.05, 0.5):
        ours = create_loss("smooth_ap", temperature=t)
        agree(lambda x, f=ours: f(x, labels), mean_over_queries(smoothed_ap(t), labels), x)


def test_hashnet_by_loops():
    x, labels = batch()
    agree(lambda x: create_loss("hashnet")(x, labels), hashnet(labels, 1, 10 / 4), x)
    sharp = create_loss("hashnet", beta=2, alpha=0.3)
    agree(lambda x: sharp(x, labels), hashnet(labels, 2, 0.3), x)
    later = create_loss("hashnet", alpha=0.3)
    later.beta = 2
    assert later(x, labels) == sharp(x, labels)


def test_central_similarity_by_loops():
    x, labels = batch()
    centres = hash_centres(4, 4).double()

    def loops(x):
        total = 0
        for i, k in itertools.product(range(len(x)), range(4)):
            h = torch.tanh(x[i, k])
            p, wanted = (1 + h) / 2, (1 + centres[labels[i], k]) / 2
            total = (
                total - (wanted * p.log() + (1 - wanted) * (1 - p).log()) + 0.1 * (h.abs() - 1) ** 2
            )
        return total / x.numel()

    ours = create_loss("csq", classes=4, bits=4, weight=0.1).double()
    agree(lambda x: ours(x, labels), loops, x)


def test_teachers_by_loops():
    (s, _), (t, _) = batch(seed=1), batch(d=7, seed=2)

    def pairs(s):
        terms = [
            ((s[i] - s[j]).square().sum() - (t[i] - t[j]).square().sum()) ** 2
            for i, j in itertools.combinations(range(len(s)), 2)
        ]
        return sum(terms) / len(terms)

    agree(lambda s: create_loss("pair_distance")(s, t), pairs, s)
    wanted = batch(seed=3)[0]
    half = lambda s: sum((s[i] - wanted[i]).square().sum() for i in range(len(s))) / (2 * len(s))  # noqa: E731
    agree(lambda s: create_loss("distillation")(s, wanted), half, s)


def test_teacher_gets_no_gradient():
    s, t = batch(seed=1)[0].requires_grad_(), batch(seed=2)[0].requires_grad_()
    for name in ("distillation", "pair_distance"):
        create_loss(name)(s, t).backward()
    assert s.grad is not None and t.grad is None


def test_cross_entropy_is_torch_s():
    x, labels = batch()
    loss = create_loss("cross_entropy", classes=4, dim=4).double()
    weight, bias = loss.classifier.weight.detach(), loss.classifier.bias.detach()
    agree(lambda x: loss(x, labels), lambda x: F.cross_entropy(x @ weight.T + bias, labels), x)
    assert {n for n, _ in loss.named_parameters()} == {"classifier.weight", "classifier.bias"}


# --- gradients


@pytest.mark.parametrize("name", [*TUPLE, "sos:first=triplet,weight=10"])
def test_gradcheck_of_tuple_losses(name):
    assert torch.autograd.gradcheck(create_loss(name), [x.requires_grad_() for x in tuples()])


BATCH = (
    "lifted_structured",
    "triplet_hashing",
    "triplet_hashing:margin=2",
    "order_aware:margin=2",
    "ap",
    "ap:bins=5,block=60",
    "smooth_ap:temperature=0.1",
    "smooth_ap:temperature=0.1,block=60",
    "hashnet",
)
CENTRES = "csq:classes=4,bits=4", "orthohash:classes=4,bits=4"


@pytest.mark.parametrize("name", [*BATCH, *CENTRES])
def test_gradcheck_of_batch_losses(name):
    x, labels = batch()
    loss = create_loss(name).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), x.requires_grad_())


@pytest.mark.parametrize("name", ["distillation", "pair_distance"])
def test_gradcheck_of_teachers(name):
    s, t = batch(seed=1)[0].requires_grad_(), batch(seed=2)[0]
    assert torch.autograd.gradcheck(lambda s: create_loss(name)(s, t), s)


# --- what others compute


def test_plain_triplet_is_torch_s():
    q, p, n = tuples()
    peer = torch.nn.TripletMarginLoss(margin=0.3, reduction="sum")

    def theirs(q, p, n):
        return sum(peer(q, p, n[:, k]) for k in range(n.shape[1])) / len(q)

    agree(create_loss("triplet", margin=0.3, squared=False), theirs, q, p, n)


def test_lifted_structure_is_pml_s():
    x, labels = batch()
    plain = pml_distances.LpDistance(normalize_embeddings=False)
    peer = pml_losses.LiftedStructureLoss(neg_margin=1, pos_margin=0, distance=plain)
    agree(lambda x: create_loss("lifted_structured")(x, labels), lambda x: peer(x, labels), x)


def test_triplet_hashing_is_pml_s():
    x, labels = batch(dtype=torch.float32)
    squared = pml_distances.LpDistance(normalize_embeddings=False, power=2)
    peer = pml_losses.TripletMarginLoss(margin=20, distance=squared)
    peer.reducer = torch.nn.Identity()
    picked = tuple(torch.tensor(c) for c in zip(*all_triplets(labels.tolist()), strict=True))
    per = peer.compute_loss(x, labels, picked, x, labels)["loss"]["losses"]
    ours = create_loss("triplet_hashing", margin=20)(x, labels)
    torch.testing.assert_close(ours, per.mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bins", [5, 20])
def test_binned_ap_is_pml_s_fast_ap(bins):
    "FastAP's bins of squared distance are bins of similarity, one fewer by its count."
    x, labels = batch()
    peer = pml_losses.FastAPLoss(num_bins=bins - 1)
    agree(lambda x: create_loss("ap", bins=bins)(x, labels), lambda x: peer(x, labels), x)


def test_orthohash_is_pml_s_cosface():
    x, labels = batch()
    ours = create_loss("orthohash", classes=4, bits=4, margin=0.3, scale=5).double()
    peer = pml_losses.CosFaceLoss(4, 4, margin=0.3, scale=5).double()
    peer.W.data = ours.centres.T
    agree(lambda x: ours(x, labels), lambda x: peer(x, labels), x)


@pytest.mark.parametrize("seed", range(3))
def test_cold_ranks_are_sklearn_s_average_precision(seed):
    x, labels = batch(n=20, seed=seed, classes=6)
    unit = F.normalize(x, dim=-1)
    s, keep = (unit @ unit.T).numpy(), ~np.eye(20, dtype=bool)
    same = (labels[:, None] == labels).numpy()
    aps = [average_precision_score(same[q][keep[q]], s[q][keep[q]]) for q in range(20)]
    ours = 1 - create_loss("smooth_ap", temperature=1e-7)(x, labels)
    assert abs(ours.item() - np.mean(aps)) < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_softmax_tuple_is_pml_s(temperature):
    "NT-Xent of one query with one positive and its negatives."
    q, p, n = tuples(b=1, n=6)
    peer = pml_losses.NTXentLoss(temperature=temperature)
    first, rest = torch.zeros(1, dtype=torch.long), torch.arange(2, 8)
    pairs = first, torch.ones(1, dtype=torch.long), torch.zeros(6, dtype=torch.long), rest

    def theirs(q, p, n):
        return peer(torch.cat([q, p, n[0]]), indices_tuple=pairs)

    ours = create_loss("softmax_tuple", temperature=temperature)
    torch.testing.assert_close(ours(q, p, n), theirs(q, p, n))


def test_pml_with_a_miner():
    x, labels = batch(dtype=torch.float32)
    miner = pml_miners.TripletMarginMiner(margin=0.3)
    made = create_loss(pml_losses.TripletMarginLoss(margin=0.3), miner=miner)
    named = create_loss("pml:TripletMarginLoss", margin=0.3, miner="TripletMarginMiner:margin=0.3")
    expected = pml_losses.TripletMarginLoss(margin=0.3)(x, labels, miner(x, labels))
    assert made(x, labels) == named(x, labels) == expected
    assert made.form == "batch"


def test_pml_parameters_are_trained():
    proxies = create_loss("pml:ProxyAnchorLoss", num_classes=4, embedding_size=4)
    assert [p.shape for p in proxies.parameters()] == [(4, 4)]


def test_pml_faults():
    for kwargs in ({"margn": 1}, {"miner": "NoMiner"}, {"miner": "TripletMarginMiner:margn=1"}):
        with pytest.raises(SpecError):
            create_loss("pml:TripletMarginLoss", **kwargs)
    with pytest.raises(SpecError, match="made already"):
        create_loss(pml_losses.TripletMarginLoss(), margin=1)


def test_pml_missing(monkeypatch):
    def none(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("imret.training.batch_losses.importlib.import_module", none)
    with pytest.raises(SpecError, match="pip install pytorch-metric-learning"):
        create_loss("pml:TripletMarginLoss")


# --- the edges


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("name", [*TUPLE, "sos:first=triplet,weight=2"])
def test_equal_vectors_in_tuples(name, fill):
    "All vectors equal, or all zero: value and gradient stay finite."
    x = [torch.full(o.shape, fill).requires_grad_() for o in tuples()]
    value = create_loss(name)(*x)
    value.backward()
    assert value.isfinite() and all(o.grad.isfinite().all() for o in x)


@pytest.mark.parametrize("fill", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("name", [*BATCH, *CENTRES])
def test_equal_vectors_in_batches(name, fill):
    x = torch.full((6, 4), fill, requires_grad=True)
    value = create_loss(name)(x, torch.tensor([0, 0, 1, 1, 2, 3]))
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()


@pytest.mark.parametrize("name", ["distillation", "pair_distance"])
def test_equal_vectors_of_teachers(name):
    x = torch.ones(4, 3, requires_grad=True)
    value = create_loss(name)(x, torch.ones(4, 3))
    value.backward()
    assert value == 0 and (x.grad == 0).all()


def test_sos_gradient_at_zero():
    q, _, n = tuples()
    q = q.requires_grad_()
    create_loss("sos")(q, q.detach().clone(), n).backward()
    assert q.grad.isfinite().all()
    with pytest.raises(SpecError, match="eps"):
        create_loss("sos", eps=0)


def test_lifted_structure_far_away():
    "Exponentials that underflow, or would overflow, one by one."
    x, labels = batch(dtype=torch.float32)
    for scale in (1e-4, 1e3, 1e6):
        far = (scale * x).requires_grad_()
        value = create_loss("lifted_structured", margin=300)(far, labels)
        value.backward()
        assert value.isfinite() and far.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("name", BATCH)
def test_no_triplet(name, labels):
    with pytest.raises(TrainingError, match="no positive and negative"):
        create_loss(name)(torch.randn(4, 8), torch.tensor(labels))


@pytest.mark.parametrize("name", BATCH)
def test_a_class_of_one_picture_only_gives_negatives(name):
    x, labels = batch()
    alone = labels.clone()
    alone[0] = 99
    assert create_loss(name)(x, alone).isfinite()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite(bad):
    q, p, n = tuples()
    n[2, 1, 0] = bad
    with pytest.raises(TrainingError, match=r"negatives has .* rows \[2\]"):
        create_loss("triplet")(q, p, n)
    x, labels = batch()
    x[7] = bad
    for call in (create_loss("lifted_structured"), create_loss("pml:TripletMarginLoss")):
        with pytest.raises(TrainingError, match=r"rows \[7\]"):
            call(x, labels)
    with pytest.raises(TrainingError, match="teacher"):
        create_loss("distillation")(batch()[0], x)


def test_wrong_shapes():
    q, p, n = tuples()
    wrong = [(q, p[:2], n), (q, p, n[:, 0]), (q, p, n[:2]), (q[0], p[0], n[0]), (q, p, n[..., :2])]
    for arguments in wrong:
        with pytest.raises(TrainingError):
            create_loss("contrastive")(*arguments)
    with pytest.raises(TrainingError):
        create_loss("contrastive")(q, p, n[:, :0])
    x, labels = batch()
    for arguments in [(x, labels[:3]), (x, labels.double()), (x[0], labels), (x.long(), labels)]:
        with pytest.raises(TrainingError):
            create_loss("triplet_hashing")(*arguments)
    with pytest.raises(TrainingError, match="2 pictures"):
        create_loss("pair_distance")(x[:1], x[:1])


@pytest.mark.parametrize(
    "name", ["cross_entropy:classes=3,dim=4", "csq:classes=3,bits=4", "orthohash:classes=3,bits=4"]
)
def test_labels_that_are_no_class(name):
    x, labels = batch()
    loss = create_loss(name).double()
    with pytest.raises(TrainingError, match="0 to 2, not 0 to 3"):
        loss(x, labels)
    with pytest.raises(TrainingError, match="4 numbers an embedding"):
        loss(x[:, :2], labels)


# --- names and parameters


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("tripel", {}, "known are"),
        ("triplet-sos", {}, "a loss is one part"),
        ("triplet", {"margni": 1}, "takes margin, squared, eps"),
        ("triplet:margin=1", {"margin": 2}, "margin"),
        ("triplet", {"margin": -1}, "margin must be 0 or more"),
        ("triplet", {"margin": math.nan}, "margin"),
        ("triplet", {"margin": "wide"}, "margin"),
        ("contrastive", {"margin": 0}, "margin must be above 0"),
        ("softmax_tuple", {"temperature": 0}, "temperature"),
        ("sos", {"weight": -1}, "weight"),
        ("sos", {"first": "lifted_structured"}, "tuple loss"),
        ("sos", {"first": "triplet", "margn": 1}, "takes margin"),
        ("triplet_hashing", {"margin": 0}, "margin"),
        ("cross_entropy", {"classes": 3}, "dim"),
        ("", {}, "name"),
        ("ap", {"bins": 1}, "2 or more"),
        ("ap", {"bins": 2.5}, "whole"),
        ("csq", {"classes": 9, "bits": 3}, "8 codes"),
    ],
)
def test_bad_names_and_parameters(name, kwargs, message):
    with pytest.raises(SpecError, match=message):
        create_loss(name, **kwargs)


def test_made_losses_pass_through():
    loss = TripletLoss()
    assert create_loss(loss) is loss
    with pytest.raises(SpecError, match="made already"):
        create_loss(loss, margin=1)


def test_a_name_is_taken_once():
    with pytest.raises(SpecError, match="TripletLoss's"):
        register_loss("triplet")(type("Other", (), {}))
    assert register_loss("triplet")(TripletLoss) is TripletLoss


def test_table():
    table = list_losses()
    assert list(table.index) == list(LOSSES)
    assert set(table.form) == {"tuple", "batch", "teacher"}
    assert (table != "").all().all()
    assert issubclass(TrainingError, ImretError)


def test_shown():
    assert repr(create_loss("triplet")) == "TripletLoss(margin=0.1, squared=True, eps=1e-06)"


# --- precision and memory


@pytest.mark.parametrize("name", [n for n in TUPLE if "eps" not in n])
def test_half_precision_is_computed_in_float32(name):
    x = [o.bfloat16() for o in tuples()]
    loss = create_loss(name)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*x)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(*(o.float() for o in x)))


def test_distances_keep_digits():
    x = torch.tensor([[100.0, 0.0], [100.0, 0.001]])
    assert abs(distances(x)[0, 1].item() - 0.001) < 1e-8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(3, 20), st.floats(0.1, 50), st.integers(1, 4000))
def test_blocks_change_nothing(seed, n, margin, block):
    "Any block gives the counts of one block, which are those of loops."
    x, labels = batch(n=n, seed=seed, classes=3)
    apart = distances(x).square()
    same = labels[:, None] == labels
    counts, active = triplet_counts(apart, same.triu(1), ~same, margin, block)
    expected, number = np.zeros((n, n)), 0
    for a, p, k in all_triplets(labels.tolist()):
        if apart[a, p] + margin > apart[a, k]:
            expected[a, p] += 1
            expected[a, k] -= 1
            number += 1
    assert (counts.numpy() == expected).all() and active == number


def test_random_order_of_a_batch_changes_little():
    "Which of a pair is the anchor depends on the order in triplet hashing, and only there."
    x, labels = batch()
    turn = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    lifted_loss = create_loss("lifted_structured")
    torch.testing.assert_close(lifted_loss(x, labels), lifted_loss(x[turn], labels[turn]))
    flipped = create_loss("triplet_hashing", margin=3)
    assert flipped(x, labels) != flipped(x.flip(0), labels.flip(0))


# --- centres


@given(st.integers(1, 64), st.integers(1, 32), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_centres_are_codes_and_differ(classes, bits, seed):
    if bits < 7 and classes > 2**bits:
        with pytest.raises(SpecError):
            hash_centres(classes, bits, seed)
        return
    centres = hash_centres(classes, bits, seed)
    assert centres.shape == (classes, bits) and set(centres.unique().tolist()) <= {-1, 1}
    assert len(centres.unique(dim=0)) == classes
    assert torch.equal(centres, hash_centres(classes, bits, seed))
    if bits in (1, 2, 4, 8, 16, 32) and classes <= 2 * bits:
        products = (centres @ centres.T)[~torch.eye(classes, dtype=torch.bool)]
        assert set(products.tolist()) <= {0, -bits}


def test_centres_travel_with_the_loss():
    loss = create_loss("csq", classes=40, bits=24, seed=3)
    other = create_loss("csq", classes=40, bits=24)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.centres, hash_centres(40, 24, seed=3))


# --- large batches in stages


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 6)).double()


@pytest.mark.parametrize("name", ["ap:block=64", "smooth_ap:block=64", "lifted_structured", "csq"])
@pytest.mark.parametrize("chunk", [1, 7, 24, 100])
def test_staged_is_direct(name, chunk):
    g = torch.Generator().manual_seed(1)
    images, labels = torch.randn(24, 3, 16, 16, generator=g, dtype=DOUBLE), torch.arange(24) % 6
    loss = create_loss(name, classes=6, bits=6) if name == "csq" else create_loss(name)
    nets = [small_net(), small_net()]
    direct = loss(nets[0](images), labels)
    direct.backward()
    staged = staged_backward(nets[1], images, lambda x: loss(x, labels), chunk)
    assert not staged.requires_grad
    torch.testing.assert_close(staged, direct.detach())
    for a, b in zip(*(n.parameters() for n in nets), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_staged_adds_to_gradients_and_reaches_the_loss():
    images, labels = torch.randn(12, 3, 16, 16, dtype=DOUBLE), torch.arange(12) % 3
    net, loss = small_net(), create_loss("cross_entropy", classes=3, dim=6).double()
    once = torch.autograd.grad(loss(net(images), labels), [*net.parameters(), *loss.parameters()])
    for _ in range(2):
        staged_backward(net, images, lambda x: loss(x, labels), 5)
    for p, g in zip([*net.parameters(), *loss.parameters()], once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)


def test_staged_takes_what_can_be_sliced():
    "Pictures that are made when they are asked for."
    images, labels = torch.randn(12, 3, 16, 16, dtype=DOUBLE), torch.arange(12) % 3
    asked = []

    class Lazy:
        def __len__(self):
            return len(images)

        def __getitem__(self, rows):
            asked.append(rows.stop - rows.start)
            return images[rows]

    loss = create_loss("ap")
    value = staged_backward(small_net(), Lazy(), lambda x: loss(x, labels), 4)
    assert value == loss(small_net()(images), labels) and set(asked) == {4}


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.Dropout2d()])
def test_staged_wants_the_same_vectors_twice(layer):
    net = nn.Sequential(layer, small_net())
    loss, labels = create_loss("ap"), torch.arange(12) % 3
    images = torch.randn(12, 3, 16, 16, dtype=DOUBLE)
    with pytest.raises(TrainingError, match="eval mode"):
        staged_backward(net, images, lambda x: loss(x, labels))
    staged_backward(net.eval(), images, lambda x: loss(x, labels))
