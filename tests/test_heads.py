"""Heads: layers that give one number per bit, alone and as the end of a net."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize

from imret.core import SpecError
from imret.nets import (
    HEADS,
    EmbeddingNet,
    create_embedder,
    create_head,
    export_onnx,
    inference_net,
    load_net,
    save_net,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SPECS = ["linear:3", "linear:3,balanced=true", "hash:3", "divide_encode:3"]


@pytest.mark.parametrize("spec", SPECS)
def test_gradcheck_of_heads(spec):
    head = create_head(spec, 7).double()
    x = torch.randn(5, 7, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(head, x.requires_grad_())


def test_every_head_is_tried():
    assert {spec.partition(":")[0] for spec in SPECS} == {*HEADS}


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_slices_of_divide_and_encode(dim, bits):
    if bits > dim:
        with pytest.raises(SpecError):
            create_head("divide_encode", dim, bits)
        return
    head = create_head("divide_encode", dim, bits)
    x = torch.randn(3, dim)
    slices = zip(x.tensor_split(bits, 1), head.weight.tensor_split(bits), head.bias, strict=True)
    expected = [torch.sigmoid(s @ w + b) - 0.5 for s, w, b in slices]
    torch.testing.assert_close(head(x), torch.stack(expected, dim=1))
    assert head(x).abs().max() <= 0.5


def test_hash_is_linear_and_tanh():
    head, x = create_head("hash", 7, 3), torch.randn(5, 7)
    assert torch.equal(head(x), (x @ head[0].weight.T + head[0].bias).tanh())


def test_unknown_heads():
    for arguments in [("lin", 4, 2), ("linear", 0, 2), ("linear", 4, -1)]:
        with pytest.raises(SpecError):
            create_head(*arguments)
    for arguments in [("hash", 4), ("hash:2", 4, 2), ("hash:x", 4), ("hash:2-linear:2", 4)]:
        with pytest.raises(SpecError):
            create_head(*arguments)


# As the end of a net


@pytest.mark.parametrize("spec", SPECS)
def test_a_net_gives_the_numbers_of_its_head(spec, tmp_path):
    torch.manual_seed(0)
    net = create_embedder(f"resnet18-spoc-{spec}", pretrained=False)
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        pooled = net.backbone(x).mean(dim=(2, 3))
        assert torch.allclose(net(x), net.head(pooled), atol=1e-6)
    assert (net.name, net.dim) == (f"resnet18-spoc-{spec}", 3) and not net.training
    again = load_net(save_net(net, tmp_path / "net.pth"))
    with torch.inference_mode():
        assert torch.equal(again(x), net(x))
    assert again.fingerprint() == net.fingerprint()


@pytest.mark.parametrize("spec", SPECS)
def test_ready_to_run(spec):
    "The net made ready is folded, though its numbers are not of length one."
    torch.manual_seed(0)
    net = create_embedder(f"resnet18-spoc-{spec}", pretrained=False)
    with torch.no_grad():
        for p in net.head.parameters():
            p.mul_(0.01)  # far from length one: products with what is wanted would be tiny
    pixels = torch.randint(256, (2, 96, 64, 3), dtype=torch.uint8)
    ready = inference_net(net)
    with torch.inference_mode():
        assert torch.allclose(ready(pixels), net(net.preprocess(pixels)), atol=1e-4)
    norms = [m for m in ready.net.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not norms, "BatchNorms were not folded"


def test_a_local_whitening_before_a_head():
    net = create_embedder("resnet18-hash:8-lwhiten-spoc", pretrained=False)
    assert net.name == "resnet18-lwhiten-spoc-hash:8"
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(net(x), net.head(net.pool(net.lwhiten(net.backbone(x)))), atol=1e-6)


def test_pooled_by_the_backbone():
    net = create_embedder("vit_tiny_patch16_224-cls-hash:8", pretrained=False)
    with torch.inference_mode():
        assert net(torch.randn(1, 3, 64, 64)).shape == (1, 8)


def test_a_head_of_ones_own():
    net = create_embedder("resnet18-spoc", pretrained=False)
    head = nn.Sequential(nn.Linear(512, 4), nn.Dropout(0.5))
    own = EmbeddingNet(net.backbone, net.pool, "resnet18-spoc-mine:4", head=head)
    assert own.dim == 4 and own.training and head.training
    with pytest.raises(SpecError, match="a head and a whitening"):
        EmbeddingNet(net.backbone, net.pool, "x", whiten=nn.Linear(512, 4), head=head)
    with torch.device("meta"):
        assert create_embedder("resnet18-spoc-hash:8", pretrained=False).dim == 8


def test_weights_without_a_head(tmp_path):
    "A net that is to get a head starts from the weights of one that has none."
    torch.manual_seed(0)
    plain = create_embedder("resnet18-gem:p=4", pretrained=False)
    files = {"whole": tmp_path / "whole.pth", "saved": tmp_path / "saved.pth"}
    torch.save(plain.state_dict(), files["whole"])
    save_net(plain, files["saved"])
    x = torch.randn(1, 3, 64, 64)
    for file in files.values():
        net = create_embedder("resnet18-gem:p=4-hash:8", weights=file)
        with torch.inference_mode():
            v = net.pool(net.backbone(x))
            assert torch.allclose(normalize(v), plain(x), atol=1e-6)


@pytest.mark.parametrize("spec", ["linear:3", "hash:3"])
def test_as_onnx(spec, tmp_path):
    "Another engine gives the same numbers, and `load_net` finds that engine."
    torch.manual_seed(0)
    net = create_embedder(f"resnet10t-spoc-{spec}", pretrained=False)
    export_onnx(net, tmp_path / "net.onnx")
    again, x = load_net(tmp_path / "net.onnx"), torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        assert np.allclose(again(x.numpy()), net(x).numpy(), atol=1e-5)
    assert (again.name, again.dim) == (net.name, 3)
