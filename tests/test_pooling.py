"""Poolings: every one against plain loops, at the edges, in half precision, with its gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import roi_pool

from imret.core import ImretError, SpecError
from imret.nets import (
    POOLINGS,
    Pooling,
    create_embedder,
    create_pooling,
    place_effects,
    register_pooling,
)
from imret.nets.regions import box_cells, rmac_boxes
from imret.nets.weighted import local_gem, nested_invariance, quarter_turns, scale_gem

# --- oracles: one map (C, H, W) in float64, loops over channels and places


def mac(x):
    return np.array([max(c.ravel()) for c in x])


def spoc(x):
    return np.array([sum(c.ravel()) / c.size for c in x])


def gem(x, p=3.0, eps=1e-6):
    return np.array([(sum(max(v, eps) ** p for v in c.ravel()) / c.size) ** (1 / p) for c in x])


def gemcars(x, p=3.0):
    out = []
    for c in x:
        values = [max(v, 0.0) for v in c.ravel()]
        norm = math.sqrt(sum(v * v for v in values))
        out.append((sum(v**p for v in values) / (norm + 1e-7) + 0.1) ** (1 / p))
    return np.array(out)


def unit(v):
    return v / (np.linalg.norm(v) + 1e-6)


def grid(height, width, levels):
    "R-MAC's boxes as half-open ranges, by floating point as in the papers' code."
    short, long = min(height, width), max(height, width)
    gap = [(long - short) / (n - 1) for n in range(2, 8)]
    extra = int(np.argmin([abs(1 - b / short - 0.4) + 1e-9 * i for i, b in enumerate(gap)])) + 1
    more_x, more_y = extra * (width > height), extra * (height > width)
    for level in range(1, levels + 1):
        side = math.floor(2 * short / (level + 1))
        nx, ny = level + more_x, level + more_y
        bx = (width - side) / (nx - 1) if nx > 1 else 0
        by = (height - side) / (ny - 1) if ny > 1 else 0
        for i in range(ny):
            for j in range(nx):
                y, x = math.floor(i * by + 1e-9), math.floor(j * bx + 1e-9)
                if side:
                    yield y, y + side, x, x + side


def regional(x, inner, levels=3, whole=True):
    boxes = [(0, x.shape[1], 0, x.shape[2])] if whole else []
    boxes += list(grid(x.shape[1], x.shape[2], levels))
    return sum(unit(inner(x[:, y0:y1, x0:x1])) for y0, y1, x0, x1 in boxes)


def roi(x, boxes, stride=32):
    total = 0
    for x1, y1, x2, y2 in boxes:
        places = [
            x[:, i, j]
            for i in range(x.shape[1])
            for j in range(x.shape[2])
            if math.floor(y1 / stride + 0.5) <= i <= math.floor(y2 / stride + 0.5)
            and math.floor(x1 / stride + 0.5) <= j <= math.floor(x2 / stride + 0.5)
        ]
        total = total + unit(np.max(places, axis=0))
    return total


def crow(x):
    places = [(i, j) for i in range(x.shape[1]) for j in range(x.shape[2])]
    sums = {(i, j): max(sum(x[:, i, j]), 1e-6) for i, j in places}
    norm = math.sqrt(sum(s * s for s in sums.values()))
    often = [sum(v > 0 for v in c.ravel()) / c.size for c in x]
    out = []
    for c, q in zip(x, often, strict=True):
        pooled = sum(math.sqrt(sums[i, j] / norm) * c[i, j] for i, j in places)
        out.append(pooled * math.log(sum(often) / q) if q else 0)
    return np.array(out)


def hnip(x):
    crops = []
    for s in (0.75, 0.5, 0.25, 1):
        h, w = max(1, math.floor(x.shape[1] * s)), max(1, math.floor(x.shape[2] * s))
        crops.append(unit(gem(x[:, :h, :w], 2)))
    return np.mean(crops, axis=0)


def smoothed(x, p=2.5, size=5):
    "Windows around each place, mirrored at the border."
    x, r = np.maximum(x, 1e-6), size // 2
    wide = np.pad(x, [(0, 0), (r, r), (r, r)], mode="reflect")
    out = np.empty_like(x)
    for c, i, j in np.ndindex(x.shape):
        out[c, i, j] = np.mean(wide[c, i : i + size, j : j + size] ** p) ** (1 / p)
    return out


def rgem(x, size=5):
    return gem((x + smoothed(x, size=size)) / 2, 4.6, 1e-8)


BOXES = [[0, 0, 100, 60], [40, 30, 130, 190]]

ORACLES = {
    "mac": ({}, mac),
    "spoc": ({}, spoc),
    "gem": ({}, gem),
    "gem p=1.5": ({"p": 1.5}, lambda x: gem(x, 1.5)),
    "gem per channel": ({"per_channel": True, "dim": 6, "p": 4}, lambda x: gem(x, 4)),
    "gemcars": ({}, gemcars),
    "gemcars p=2.5": ({"p": 2.5}, lambda x: gemcars(x, 2.5)),
    "rmac": ({}, lambda x: regional(x, mac)),
    "rmac levels=2,whole=False": (
        {"levels": 2, "whole": False},
        lambda x: regional(x, mac, 2, False),
    ),
    "regional": ({}, lambda x: regional(x, gem)),
    "regional inner=spoc": ({"inner": "spoc"}, lambda x: regional(x, spoc)),
    "roi": ({"boxes": BOXES}, lambda x: roi(x, BOXES)),
    "crow": ({}, crow),
    "hnip": ({}, hnip),
    "gemplus": ({}, lambda x: gem(x, 4.6, 1e-8)),
    "rgem": ({}, rgem),
    "rgem inner=mac,size=3": (
        {"inner": "mac", "size": 3},
        lambda x: mac((x + smoothed(x, size=3)) / 2),
    ),
}
each_pooling = pytest.mark.parametrize("case", ORACLES)


def make(case: str) -> tuple[nn.Module, callable]:
    "The pooling of a case, and its oracle."
    parameters, oracle = ORACLES[case]
    return create_pooling(case.split()[0], **parameters).requires_grad_(False), oracle


def maps(*shape: int, seed: int = 0, signed: bool = False) -> torch.Tensor:
    "As after a ReLU, half of it zeros; or with negative values."
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x if signed else x.relu()


def check(pool: nn.Module, oracle, x: torch.Tensor) -> None:
    got = pool(x).detach().numpy()
    wanted = np.stack([oracle(m) for m in x.double().numpy()])
    assert got.dtype == np.float32 and got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@each_pooling
@pytest.mark.parametrize("side", [(7, 7), (6, 9), (12, 5)])
def test_oracle(case, side):
    check(*make(case), maps(2, 6, *side))


@each_pooling
def test_negative_features(case):
    check(*make(case), maps(2, 6, 7, 6, signed=True))


@each_pooling
@pytest.mark.parametrize("side", [(1, 1), (1, 9), (6, 1), (2, 2)])
def test_tiny_maps(case, side):
    pool, oracle = make(case)
    if case == "roi":
        pool, oracle = create_pooling("roi", boxes=[[0, 0, 9, 9]]), lambda x: unit(x[:, 0, 0])
    check(pool, oracle, maps(3, 6, *side) + 0.1)


@each_pooling
def test_silent_maps(case):
    "A map of zeros gives finite values, and finite gradients."
    pool, _ = make(case)
    x = torch.zeros(2, 6, 7, 6, requires_grad=True)
    y = pool(x)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all()


@each_pooling
def test_batch_does_not_matter(case):
    pool, _ = make(case)
    x = maps(4, 6, 7, 9)
    together, alone = pool(x), torch.cat([pool(m[None]) for m in x])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(pool(x.flip(0)), together.flip(0), atol=1e-6)


@each_pooling
def test_half_precision(case):
    "Half in, float32 out, as if the same values had come in float32; under autocast too."
    pool, _ = make(case)
    for dtype in (torch.float16, torch.bfloat16):
        x = maps(2, 6, 7, 9).to(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            y = pool(x)
        assert y.dtype == torch.float32
        assert torch.equal(y, pool(x.float()))


@each_pooling
def test_gradient(case):
    "Against central differences of the oracle."
    pool, oracle = make(case)
    x = maps(1, 6, 6, 7, seed=1).add(0.1).requires_grad_()
    weights = torch.linspace(-1, 1, 6)
    (pool(x)[0] @ weights).backward()
    rng = np.random.default_rng(0)
    base, step = x.detach()[0].double().numpy(), 1e-5
    for _ in range(8):
        place = tuple(rng.integers(base.shape))
        high, low = base.copy(), base.copy()
        high[place] += step
        low[place] -= step
        slope = (oracle(high) - oracle(low)) @ weights.double().numpy() / (2 * step)
        assert abs(slope - x.grad[0][place].item()) < 1e-3 * max(1, abs(slope))


@pytest.mark.parametrize("name", ["gem", "gemcars"])
def test_gradient_of_p(name):
    pool, oracle = create_pooling(name), ORACLES[name][1]
    x = maps(1, 6, 6, 7)
    pool(x).sum().backward()
    m, step = x[0].double().numpy(), 1e-5
    slope = (oracle(m, p=3 + step).sum() - oracle(m, p=3 - step).sum()) / (2 * step)
    assert pool.p.grad.item() == pytest.approx(slope, rel=1e-3)


def test_channels_keep_their_own_p():
    pool = create_pooling("gem", per_channel=True, dim=3)
    pool.p.data[:] = torch.tensor([1.0, 2.0, 5.0])
    x = maps(2, 3, 4, 5)
    for c, p in enumerate((1.0, 2.0, 5.0)):
        assert np.allclose(
            pool(x)[0, c].item(), gem(x[0, c : c + 1].double().numpy(), p)[0], rtol=1e-5
        )
    again = create_pooling("gem", per_channel=True, dim=3)
    again.load_state_dict(pool.state_dict())
    assert torch.equal(again(x), pool(x))


# --- the grid


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_grid(height, width, levels):
    boxes = rmac_boxes(height, width, levels).tolist()
    assert boxes == [[x0, y0, x1 - 1, y1 - 1] for y0, y1, x0, x1 in grid(height, width, levels)]
    assert all(0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height for x1, y1, x2, y2 in boxes)
    turned = sorted([y1, x1, y2, x2] for x1, y1, x2, y2 in boxes)
    assert turned == sorted(rmac_boxes(width, height, levels).tolist())
    assert max(b[2] for b in boxes) == width - 1 and max(b[3] for b in boxes) == height - 1


FIXTURES = {
    (280, 496): [
        *([0, 0, 279, 279], [216, 0, 495, 279]),
        *([0, 0, 185, 185], [155, 0, 340, 185], [310, 0, 495, 185]),
        *([0, 94, 185, 279], [155, 94, 340, 279], [310, 94, 495, 279]),
    ],
    (384, 512): [
        *([0, 0, 383, 383], [128, 0, 511, 383]),
        *([0, 0, 255, 255], [128, 0, 383, 255], [256, 0, 511, 255]),
        *([0, 128, 255, 383], [128, 128, 383, 383], [256, 128, 511, 383]),
    ],
    (288, 384): [
        *([0, 0, 287, 287], [96, 0, 383, 287]),
        *([0, 0, 191, 191], [96, 0, 287, 191], [192, 0, 383, 191]),
        *([0, 96, 191, 287], [96, 96, 287, 287], [192, 96, 383, 287]),
    ],
}


@pytest.mark.parametrize("side", FIXTURES)
def test_grid_of_known_pictures(side):
    assert rmac_boxes(*side, levels=2).tolist() == FIXTURES[side]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 2**31))
def test_boxes_as_torchvision_pools_them(height, width, seed):
    "Its roi_pool rounds as Caffe's did; only boxes whose start rounds past the map differ."
    rng = np.random.default_rng(seed)
    ends = np.array([width, height] * 2) * 32 - 17
    boxes = np.sort(rng.uniform(0, 1, (5, 2, 2)), axis=1).reshape(5, 4) * ends
    x = maps(1, 4, height, width, seed=seed)
    wanted = roi_pool(x, [torch.tensor(boxes, dtype=torch.float32)], 1, 1 / 32)[:, :, 0, 0]
    cells = box_cells(boxes.astype(np.float32), 32, height, width)
    got = torch.stack([x[0, :, b:d, a:c].amax((1, 2)) for a, b, c, d in cells + [0, 0, 1, 1]])
    assert torch.equal(got, wanted)


def test_original_rmac_from_pixels():
    "Region max on the picture's grid, length one, a linear layer, length one, sum."
    height, width = 600, 800
    x = maps(2, 6, 19, 25)
    layer = nn.Linear(6, 4)
    pool = create_pooling("rmac", levels=2, whole=False, grid="pixels", whiten=layer)
    boxes = torch.tensor(rmac_boxes(height, width, 2), dtype=torch.float32)
    v = roi_pool(x, [boxes, boxes], 1, 1 / 32)[:, :, 0, 0].view(2, len(boxes), 6)
    v = nn.functional.normalize(layer(nn.functional.normalize(v, dim=-1)), dim=-1).sum(dim=1)
    assert torch.allclose(pool(x, image_size=(height, width)), v, atol=1e-5)


def test_box_at_the_border_keeps_a_cell():
    assert box_cells([[150, 0, 159, 9]], 32, 4, 5).tolist() == [[4, 0, 4, 0]]
    assert box_cells([[-50, -9, 9, 900]], 32, 4, 5).tolist() == [[0, 0, 0, 3]]


@pytest.mark.parametrize(
    "boxes, said",
    [
        ([[0, 0, 9, 9], [5, 9, 9, 8]], r"box 1 \(5, 9, 9, 8\) is empty"),
        ([[0, 0, float("nan"), 8]], "box 0"),
        ([[700, 0, 710, 8]], "box 0 .* outside the picture of 288 x 224 pixels"),
        ([[-9, -9, -1, -1]], "outside"),
        ([[1, 2, 3]], "rows x1, y1, x2, y2"),
        (np.zeros((0, 4)), "at least one"),
        ([[[0, 0, 9, 9]]] * 3, "3 lists of boxes for 2 maps"),
    ],
)
def test_wrong_boxes(boxes, said):
    with pytest.raises(ImretError, match=said):
        create_pooling("roi")(maps(2, 6, 7, 9), boxes=boxes)


# --- turns and sizes


def test_turns_join_by_maximum():
    turns = [maps(3, 6, *side, seed=k) for k, side in enumerate([(7, 9), (9, 7)] * 2)]
    got = nested_invariance(turns).numpy()
    wanted = [np.max([hnip(t[b].double().numpy()) for t in turns], axis=0) for b in range(3)]
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    one = nested_invariance([t[1:2] for t in turns])
    np.testing.assert_allclose(one.numpy(), got[1:2], atol=1e-6)
    regions = nested_invariance(turns, create_pooling("regional", inner="gem", p=2))
    assert regions.shape == (3, 6)
    with pytest.raises(ImretError, match="one turn at least"):
        nested_invariance([])


def test_quarter_turns_close_the_circle():
    x = torch.rand(2, 3, 4, 6)
    a, b, c, d = quarter_turns(x)
    assert torch.equal(a, x) and torch.equal(c, x.flip(-1, -2)) and d.shape == b.shape
    assert torch.equal(b, x.transpose(-1, -2).flip(-2)) and torch.equal(quarter_turns(b)[1], c)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("side", [(1, 1), (1, 4), (2, 3), (9, 6)])
def test_windows_are_mirrored(size, side):
    x = maps(1, 2, *side)
    wanted = smoothed(x[0].double().numpy(), size=size)
    np.testing.assert_allclose(local_gem(x, size=size)[0].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2.5, 10, math.inf])
def test_sizes_join(p):
    v = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    got = scale_gem(v, p).numpy()
    for b in range(4):
        rows = v[:, b].double().numpy()
        if p == math.inf:
            wanted = np.max([r / np.linalg.norm(r) for r in rows], axis=0)
        else:
            low = rows.min()
            wanted = np.mean((rows - low) ** p, axis=0) ** (1 / p) + low
        np.testing.assert_allclose(got[b], wanted, atol=1e-5)
        np.testing.assert_allclose(scale_gem(v[:, b : b + 1], p).numpy()[0], got[b], atol=1e-6)
    assert scale_gem(list(v.half()), p).dtype == torch.float32
    with pytest.raises(SpecError, match="p=0"):
        scale_gem(v, 0)


# --- names


@pytest.mark.parametrize(
    "name, parameters, said",
    [
        ("gum", {}, "known are .*gem, .*mac"),
        ("mac", {"p": 3}, "'mac' cannot take"),
        ("gem", {"p": 0}, "p=0"),
        ("gem", {"p": math.inf}, "p=inf"),
        ("gem", {"p": math.nan}, "p=nan"),
        ("gem", {"eps": 0}, "eps=0"),
        ("gem", {"p": "three"}, "three"),
        ("gem", {"per_channel": True}, "needs dim"),
        ("gemcars", {"p": -1}, "p=-1"),
        ("gemcars", {"offset": 0}, "offset=0"),
        ("rmac", {"levels": -1}, "levels=-1"),
        ("rmac", {"levels": 2.5}, "levels=2.5"),
        ("rmac", {"grid": "cells"}, "grid is map or pixels"),
        ("rmac", {"stride": 0}, "stride=0"),
        ("crow", {"a": 0}, "a=0"),
        ("crow", {"b": -1}, "b=-1"),
        ("hnip", {"scales": (0.5, 1.5)}, "scales"),
        ("hnip", {"scales": ()}, "scales"),
        ("hnip", {"p": 0}, "p=0"),
        ("gemplus", {"p": -2}, "p=-2"),
        ("rgem", {"size": 4}, "size=4"),
        ("rgem", {"size": 2.5}, "size=2.5"),
        ("rgem", {"local_p": 0}, "local_p=0"),
        ("rgem", {"inner": "mac", "p": 3}, "'mac' cannot take"),
        ("regional", {"inner": "gum"}, "unknown pooling 'gum'"),
        ("regional", {"inner": "mac", "p": 3}, "'mac' cannot take"),
        ("regional", {"inner": nn.Identity(), "p": 3}, "not a module"),
    ],
)
def test_wrong_parameters(name, parameters, said):
    with pytest.raises(SpecError, match=said) as e:
        create_pooling(name, **parameters)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("shape", [(6, 7, 7), (1, 6, 0, 4), (2, 6)])
@each_pooling
def test_no_map(case, shape):
    with pytest.raises(ImretError, match="at least one place"):
        make(case)[0](torch.zeros(shape))


def test_every_name_has_its_oracle():
    modules = {f"imret.nets.{m}" for m in ("pooling", "regions", "weighted")}
    here = {name for name, cls in POOLINGS.items() if cls.__module__ in modules}
    assert here == {case.split()[0] for case in ORACLES}


def test_a_net_with_each():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 96, 64)
    for name in sorted({case.split()[0] for case in ORACLES} - {"roi"}):
        net = create_embedder(f"resnet18-{name}", pretrained=False)
        with torch.inference_mode():
            assert torch.allclose(net(x).norm(dim=1), torch.ones(2), atol=1e-5), name


def test_inner_pooling_hears_of_dim():
    pool = create_pooling("regional", dim=6, inner="gem", per_channel=True)
    assert pool.inner.p.shape == (6,) and pool(maps(1, 6, 5, 5)).shape == (1, 6)


def test_registering(monkeypatch):
    monkeypatch.setattr(POOLINGS, "_things", dict(POOLINGS._things))

    @register_pooling("sum")
    class Sum(Pooling):
        def pool(self, x):
            return x.sum(dim=(-2, -1))

    assert create_pooling("sum")(torch.ones(1, 2, 3, 4)).tolist() == [[12, 12]]
    register_pooling("sum")(Sum)  # once more is no harm
    assert create_embedder("resnet18-sum", pretrained=False).name == "resnet18-sum"
    with pytest.raises(SpecError, match="the pooling 'gem' is GeM's"):
        register_pooling("gem")(Sum)


def test_effects_find_the_place():
    x = torch.zeros(1, 3, 4, 5)
    x[0, :, 2, 3] = torch.tensor([1.0, 2.0, 3.0])
    x[0, 0, 0, 0] = 0.5
    for name in ("mac", "spoc", "gem"):
        effects = place_effects(create_pooling(name), x)
        assert effects.shape == (4, 5) and effects.argmax().item() == 2 * 5 + 3
        assert (effects >= 0).all()
