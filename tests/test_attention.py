"""Attention: against loops over places, in every precision and mode, and without a large matrix."""

import numpy as np
import pytest
import torch
from torch import nn

from imret.core import ImretError, SpecError
from imret.nets import SecondOrderAttention, SpatialAttention, create_pooling

SHAPES = [(1, 8, 1, 1), (2, 8, 3, 5), (1, 6, 7, 2)]


def woken(channels: int, middle: int, seed: int = 0) -> SecondOrderAttention:
    "A block as training leaves it: no part is zero, and BatchNorm has seen something."
    torch.manual_seed(seed)
    block = SecondOrderAttention(channels, middle)
    nn.init.normal_(block.v.weight, std=0.3)
    nn.init.normal_(block.v.bias, std=0.3)
    for part in (block.f, block.g):
        part[1].running_mean.uniform_(-0.2, 0.2)
        part[1].running_var.uniform_(0.5, 2)
        nn.init.uniform_(part[1].weight, 0.5, 1.5)
        nn.init.uniform_(part[1].bias, -0.2, 0.2)
    return block.eval()


def by_loops(block: SecondOrderAttention, x: np.ndarray, exponent: float = 0.5):
    "One place after another, from the block's numbers alone: features and maps."
    state = {k: v.double().numpy() for k, v in block.state_dict().items()}

    def linear(name, place):
        return state[f"{name}.weight"][:, :, 0, 0] @ place + state[f"{name}.bias"]

    def compared(name, place):
        y = linear(f"{name}.0", place) - state[f"{name}.1.running_mean"]
        y = y / np.sqrt(state[f"{name}.1.running_var"] + 1e-5)
        return np.maximum(y * state[f"{name}.1.weight"] + state[f"{name}.1.bias"], 0)

    out, maps = np.empty_like(x), []
    for b, image in enumerate(x):
        places = [(i, j) for i in range(x.shape[2]) for j in range(x.shape[3])]
        for i, j in places:
            f = compared("f", image[:, i, j])
            scores = [f @ compared("g", image[:, k, n]) / len(f) ** exponent for k, n in places]
            weights = np.exp(scores) / np.exp(scores).sum()
            gathered = sum(
                w * linear("h", image[:, k, n]) for w, (k, n) in zip(weights, places, strict=True)
            )
            out[b, :, i, j] = image[:, i, j] + linear("v", gathered)
            maps.append(weights)
    return out, np.array(maps).reshape(len(x), len(places), *x.shape[2:])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("exponent", [0.5, 0.75])
def test_loops_agree(shape, exponent):
    block, x = woken(shape[1], 4), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    wanted, wanted_maps = by_loops(block, x.double().numpy(), exponent)
    with torch.inference_mode():
        features, maps = block.with_maps(x, exponent)
        np.testing.assert_allclose(features, wanted, atol=1e-5)
        np.testing.assert_allclose(maps, wanted_maps, atol=1e-6)
        if exponent == 0.5:
            np.testing.assert_allclose(block(x), wanted, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_new_block_is_the_identity(train, dtype):
    block = SecondOrderAttention(12, 3).to(dtype).train(train)
    x = torch.randn(2, 12, 4, 5).to(dtype)
    assert torch.equal(block(x), x)
    assert torch.equal(block.with_maps(x)[0], x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    block, x = woken(16, 8), torch.randn(2, 16, 6, 5)
    with torch.inference_mode():
        exact = block(x)
        near = 0.05 * exact.abs().max()
        for halved in (block.to(dtype)(x.to(dtype)), block.with_maps(x.to(dtype))[0]):
            assert halved.dtype == dtype
            assert (halved.float() - exact).abs().max() < near
        block.float()
        with torch.autocast("cpu", dtype):
            both = block(x), block.with_maps(x)[0]
        assert all((out - exact).abs().max() < near for out in both)


def test_strong_features_do_not_overflow():
    "Products of 1024 channels of 20 are larger than float16's largest number."
    block, x = woken(16, 1024).half(), torch.full((1, 16, 3, 3), 20.0).half()
    assert block(x).isfinite().all()
    assert all(t.isfinite().all() for t in block.with_maps(x))


def test_gradients_reach_every_part_once_v_has_moved():
    torch.manual_seed(0)
    block, x = SecondOrderAttention(8), torch.randn(2, 8, 4, 4, requires_grad=True)
    moved = []
    for _ in range(2):
        block.zero_grad()
        block(x).square().sum().backward()
        moved.append({n for n, p in block.named_parameters() if p.grad.abs().max() > 1e-7})
        with torch.no_grad():
            for p in block.parameters():
                p.sub_(0.01 * p.grad)
    assert moved[0] == {"v.weight", "v.bias"}
    # adding a number to f or h before BatchNorm changes nothing, so their first biases stay
    assert moved[1] >= {f"{n}.weight" for n in ("f.0", "f.1", "g.0", "g.1", "h", "v")}
    assert x.grad.abs().min() > 0


def test_both_ways_have_the_same_gradients():
    gradients = []
    for way in (lambda b, x: b(x), lambda b, x: b.with_maps(x)[0]):
        block, x = woken(8, 4), torch.randn(1, 8, 3, 4, generator=torch.Generator().manual_seed(2))
        way(block.train(), x).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in block.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_training_uses_the_batch_and_eval_what_was_kept():
    block, x = woken(8, 4), 3 + torch.randn(4, 8, 5, 5)
    one, together = block(x[:1]), block(x)
    torch.testing.assert_close(one, together[:1])
    before = block.f[1].running_mean.clone()
    assert not torch.allclose(block.train()(x), together)
    assert not torch.equal(block.f[1].running_mean, before)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_no_matrix_of_all_pairs_is_kept(memory):
    block, side = SecondOrderAttention(32, 8), 40
    x = torch.randn(1, 32, side, side).contiguous(memory_format=memory)
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x)
    assert max(sizes) == x.numel() < side**4


def test_keys_are_the_published_ones():
    "So that a checkpoint needs no renaming inside a block."
    keys = set(SecondOrderAttention(8).state_dict())
    for part in ("f", "g"):
        assert {f"{part}.0.weight", f"{part}.0.bias", f"{part}.1.running_var"} <= keys
    assert {"h.weight", "h.bias", "v.weight", "v.bias"} <= keys


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"channels": 8, "middle": 0}, {"channels": 1}])
def test_a_block_without_channels_is_refused(wrong):
    with pytest.raises(SpecError, match="middle > 0"):
        SecondOrderAttention(**wrong)


# --- weights of places


@pytest.mark.parametrize("shape", SHAPES)
def test_spatial_attention_by_loops(shape):
    torch.manual_seed(0)
    pool, x = SpatialAttention(), torch.randn(shape)
    kernel, bias = pool.conv.weight[0].detach().numpy(), pool.conv.bias.item()
    b, c, h, w = shape
    wanted = np.zeros((b, c))
    for n in range(b):
        image = x[n].double().numpy()
        strength = np.zeros((2, h + 2, w + 2))
        strength[:, 1:-1, 1:-1] = image.mean(axis=0), image.max(axis=0)
        for i in range(h):
            for j in range(w):
                read = (kernel * strength[:, i : i + 3, j : j + 3]).sum() + bias
                wanted[n] += image[:, i, j] / (1 + np.exp(-read))
    np.testing.assert_allclose(pool(x).detach(), wanted, atol=1e-5)
    weights = pool.weights(x)
    assert weights.shape == (b, 1, h, w) and 0 < weights.min() and weights.max() < 1


def test_spatial_attention_learns_and_halves():
    torch.manual_seed(0)
    pool, x = create_pooling("spatial"), torch.rand(2, 6, 5, 4)
    pool(x).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in pool.parameters())
    with torch.inference_mode():
        exact = pool(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(pool(x), exact)
        half = pool.bfloat16()(x.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0.02)
    with pytest.raises(ImretError, match="at least one place"):
        pool(torch.zeros(1, 6, 0, 4))
