"""Composed nets: names in one normal form, parts that do what they say, the fast path the same."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imret.core import SpecError
from imret.names import parse_spec
from imret.nets import (
    HEADS,
    POOLINGS,
    Preprocess,
    StageMaps,
    attend,
    create_backbone,
    create_embedder,
    freeze,
    inference_net,
    list_stages,
)
from imret.nets.backbones import TORCHVISION, TorchvisionModel
from imret.nets.naming import read_name

pytestmark = pytest.mark.usefixtures("one_thread")


def awake(net: nn.Module) -> nn.Module:
    "A net whose attention and whitening have learned something."
    seed = torch.Generator().manual_seed(0)
    for name, t in net.state_dict().items():
        if ("attention" in name or "whiten" in name) and t.is_floating_point():
            t.uniform_(0.5, 2, generator=seed) if "var" in name else t.normal_(
                0, 0.05, generator=seed
            )
    return net


# Names

PARTS = ("soa:45", "lwhiten", "gem:p=4", "rwhiten", "whiten:64")


@settings(max_examples=50, deadline=None)
@given(st.permutations(PARTS), st.lists(st.booleans(), min_size=5, max_size=5))
def test_any_order_is_one_name(parts, kept):
    kept = [p for p, k in zip(parts, kept, strict=True) if k]
    backbone, found = read_name("-".join(["resnet18", *kept]))
    again, twice = read_name("-".join([backbone, *map(str, found.values())]))
    assert (again, twice) == (backbone, found)
    wanted = [p for p in PARTS if p in kept or (p.startswith("gem") and p in kept)]
    assert [str(p) for p in found.values() if str(p) != "gem"] == wanted


@pytest.mark.parametrize(
    "name, normal",
    [
        ("resnet18", "resnet18-gem"),
        ("resnet18-gem:p=3", "resnet18-gem"),
        ("resnet18-gem:p=4.0", "resnet18-gem:p=4"),
        ("resnet18-gem:eps=0.001,p=4", "resnet18-gem:p=4,eps=0.001"),
        ("resnet18-soa:54", "resnet18-soa:45-gem"),
        ("resnet18-whiten:512-gem", "resnet18-gem-whiten"),
        ("resnet18-whiten:512.0-gem", None),
        ("resnet18-mac-lwhiten", "resnet18-lwhiten-mac"),
        ("torchvision/vgg11-mac", "torchvision/vgg11-mac"),
        ("resnet18-regional:p=4.0,levels=2", "resnet18-regional:levels=2,p=4"),
        ("resnet18-hash:64-spoc", "resnet18-spoc-hash:64"),
        ("resnet18-linear:bits=8", "resnet18-gem-linear:8"),
        ("resnet18-linear:balanced=true,bits=8", "resnet18-gem-linear:8,balanced=true"),
        ("resnet18-linear:8,false", "resnet18-gem-linear:8"),
    ],
)
def test_normal_form(name, normal):
    with torch.device("meta"):
        if normal is None:
            with pytest.raises(SpecError):
                create_embedder(name, pretrained=False)
            return
        net = create_embedder(name, pretrained=False)
        assert net.name == normal
        assert create_embedder(net.name, pretrained=False).name == normal


@pytest.mark.parametrize(
    "name, said",
    [
        ("resnet18-sao:45", "known are"),
        ("resnet18-soa", "soa:45"),
        ("resnet18-soa:x", "soa:45"),
        ("resnet18-soa:k=4", "soa:45"),
        ("resnet18-soa:48", "there is no stage 8: there are 1, 2, 3, 4, 5"),
        ("resnet18-soa:4-soa:5", "2 times the same part"),
        ("resnet18-gem-mac", "2 poolings"),
        ("resnet18-linear:8-hash:8", "2 heads"),
        ("resnet18-hash:8-whiten", "keep one of them"),
        ("resnet18-hash", "lacks its bits: write hash:64"),
        ("resnet18-linear:balanced=true", "lacks its bits"),
        ("resnet18-hash:0", "whole number from 1"),
        ("resnet18-hash:8.5", "whole number from 1"),
        ("resnet18-hash:true", "whole number from 1"),
        ("resnet18-hash:8,9", "does not take 9"),
        ("resnet18-hash:8,balanced=true", "does not take balanced"),
        ("resnet18-divide_encode:513", "513 bits need 513 numbers"),
        ("resnet18-whiten:0", "512 numbers"),
        ("resnet18-whiten:513", "512 numbers"),
        ("resnet18-whiten:dim=5", "whiten:512"),
        ("resnet18-lwhiten:5", "cannot read 'lwhiten:5'"),
        ("resnet18-gem-rwhiten", "name regional"),
        ("resnet18-lwhiten-head", "needs a pooling of a map"),
        ("vit_tiny_patch16_224-soa:4", "convolutional"),
        ("swin_tiny_patch4_window7_224-soa:4", "convolutional"),
        ("torchvision/resnet19", "unknown backbone"),
        ("torchvision/resnet18.V7", "there are IMAGENET1K_V1"),
    ],
)
def test_wrong_names(name, said):
    with torch.device("meta"), pytest.raises(SpecError, match=said):
        create_embedder(name, pretrained=False)


def test_unknown_part_lists_all_parts():
    with pytest.raises(SpecError) as e:
        create_embedder("resnet18-gum", pretrained=False)
    known = str(e.value).partition("known are ")[2].partition(";")[0].split(", ")
    parts = {*POOLINGS, *HEADS, "cls", "head", "soa", "lwhiten", "rwhiten", "whiten"}
    assert parts == {*known}


# What the parts do


def test_whitenings_are_linear_maps():
    torch.manual_seed(0)
    net = awake(create_embedder("resnet18-lwhiten-gem-whiten:100", pretrained=False))
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        f = net.backbone(x)
        local = torch.einsum("bchw,dc->bdhw", f, net.lwhiten.weight)
        local = local + net.lwhiten.bias[:, None, None]
        v = nn.functional.normalize(net.pool(local))
        v = v @ net.whiten.weight.T + net.whiten.bias
        assert torch.allclose(net(x), v / v.norm(dim=1, keepdim=True), atol=1e-5)
    assert net.dim == 100


def test_regional_whitening_is_in_the_pool():
    net = create_embedder("resnet18-regional-rwhiten", pretrained=False)
    plain = create_embedder("resnet18-regional", pretrained=False)
    plain.backbone.load_state_dict(net.backbone.state_dict())
    x = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        assert torch.allclose(net(x), plain(x), atol=1e-5)
        awake(net)
        assert not torch.allclose(net(x), plain(x), atol=1e-3)
    assert "pool.whiten.weight" in net.state_dict()


def test_attention_is_behind_its_stages():
    torch.manual_seed(0)
    net = create_embedder("resnet18-soa:45-gem", pretrained=False)
    middles = {k: m.v.in_channels for k, m in net.backbone.attention.items()}
    assert middles == {"4": 256 // 4, "5": 512 // 2}
    x = torch.randn(1, 3, 64, 96)
    model, soa = awake(net).backbone.model, net.backbone.attention
    with torch.inference_mode():
        f = model.maxpool(model.act1(model.bn1(model.conv1(x))))
        f = soa["4"](model.layer3.forward(model.layer2(model.layer1(f))))
        f = soa["5"](model.layer4.forward(f))
        assert torch.allclose(net.backbone(x), f, atol=1e-5)


def test_copies_call_their_own_attention():
    net = create_embedder("resnet18-soa:4", pretrained=False)
    twin, x = copy.deepcopy(net), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = net(x)
        awake(twin)
        assert torch.equal(net(x), before) and not torch.allclose(twin(x), before, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18-soa:45-gem-whiten:128",
        "resnet50-soa:45-lwhiten-gem-whiten",
        "efficientnet_lite0-soa:45-gem",
        "mobilenetv3_small_050-soa:1-gem",
        "resnet18-soa:1-regional-rwhiten-whiten",
        "torchvision/resnet18-soa:45-gem",
        "torchvision/vgg11-soa:5-mac",
    ],
)
def test_fast_path_equals_plain(name):
    torch.manual_seed(0)
    net = awake(create_embedder(name, pretrained=False))
    pixels = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = net(net.preprocess(pixels))
    assert (inference_net(net)(pixels) - wanted).abs().max() < 1e-5


def test_default_net_has_no_new_tensors():
    net = create_embedder("resnet18-gem", pretrained=False)
    assert not [k for k in net.state_dict() if "whiten" in k or "attention" in k]
    assert repr(net.preprocess) == (
        "Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), "
        "interpolation='bicubic', image_size=224)"
    )


def test_preprocess_is_part_of_the_fingerprint():
    torch.manual_seed(0)
    caffe = create_embedder("resnet18-gem", pretrained=False, preprocess=Preprocess.caffe())
    torch.manual_seed(0)
    assert create_embedder("resnet18-gem", pretrained=False).fingerprint() != caffe.fingerprint()
    pixels = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8)
    by_hand = pixels.flip(3).float() - torch.tensor([103.939, 116.779, 123.68])
    assert torch.allclose(caffe.preprocess(pixels), by_hand.permute(0, 3, 1, 2), atol=1e-3)


# Backbones


def test_torchvision_names():
    "The list is torchvision's own: all of its ResNets and VGGs."
    from torchvision import models

    ours = ("resnet", "resnext", "wide_resnet", "vgg")
    theirs = [n for n in models.list_models(module=models) if n.startswith(ours)]
    assert sorted(TORCHVISION) == sorted(f"torchvision/{n}" for n in theirs)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_stages(name):
    if "vgg" in name and name.partition("vgg")[2] not in ("11", "16_bn"):
        pytest.skip("the same code, and slow to make")
    with torch.device("meta"):
        backbone = create_backbone(name, pretrained=False)
        maps = StageMaps(backbone, (1, 2, 3, 4, 5))
        found = maps(torch.zeros(1, 3, 64, 96))
    assert [f.shape[1] for f in found] == maps.dims
    assert [64 // f.shape[2] for f in found] == maps.strides
    assert maps.strides[-1] == (16 if "vgg" in name else 32)


def test_torchvision_files_load(tmp_path):
    import torchvision

    theirs = torchvision.models.resnet18(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "r.pth")
    x = torch.randn(1, 3, 64, 64)
    for name in ("resnet18", "torchvision/resnet18"):
        net = create_embedder(f"{name}-head", weights=tmp_path / "r.pth")
        with torch.inference_mode():
            last = nn.Sequential(*[*theirs.children()][:-2])(x)
            wanted = nn.functional.normalize(last.mean(dim=(2, 3)))
            assert torch.allclose(net(x), wanted, atol=1e-5)


def test_vgg_ends_before_its_last_pooling():
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.vgg11(weights=None).eval()
    ours = TorchvisionModel("torchvision/vgg11").eval()
    ours.load_state_dict({k: t for k, t in theirs.state_dict().items() if "classifier" not in k})
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours.forward_features(x), theirs.features[:-1](x))


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "efficientnet_lite0",
        "convnext_atto",
        "mobilenetv3_small_050",
        "vgg11",
        "vit_tiny_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_stages_of_every_kind(name):
    backbone = create_backbone(name, pretrained=False)
    maps = StageMaps(backbone, [s.number for s in list_stages(backbone)])
    with torch.inference_mode():
        found = maps(torch.zeros(1, 3, 224, 224))
    for f, stage in zip(found, maps.stages, strict=True):
        assert f.shape[1:] == (stage.dim, 224 // stage.stride, 224 // stage.stride)
    assert not any(m._forward_hooks for m in backbone.modules())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "torchvision/vgg11"])
@pytest.mark.parametrize("until", [1, 3, 4])
def test_freeze(name, until):
    backbone = create_backbone(name, pretrained=False)
    seen = {}
    attend(backbone, {until: nn.Identity()})
    backbone.attention[str(until)].register_forward_hook(lambda m, a, o: seen.update(f=o))
    freeze(backbone, until=until).train()
    backbone(torch.randn(1, 3, 64, 64)).sum().backward()
    assert not seen["f"].requires_grad
    frozen = [p for p in backbone.parameters() if not p.requires_grad]
    learning = [p for p in backbone.parameters() if p.requires_grad]
    assert frozen and all(p.grad is None for p in frozen)
    assert learning and all(p.grad is not None for p in learning)


def test_batchnorm_keeps_its_statistics():
    net = create_embedder("resnet18-soa:4-gem", pretrained=False).train()
    before = copy.deepcopy(net.backbone.model.bn1.state_dict())
    net(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(t, before[k]) for k, t in net.backbone.model.bn1.state_dict().items())
    net.backbone.fixed_norms = False
    assert net.train().backbone.model.bn1.training


def test_gradients_reach_every_part():
    net = awake(create_embedder("resnet18-soa:45-lwhiten-gem-whiten:64", pretrained=False)).train()
    v = net(torch.randn(2, 3, 64, 64))
    (v[0] @ v[1]).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_parts_of_published_names():
    for name in ("resnet101-soa:45-gem-whiten", "resnet101-gem", "torchvision/vgg16-gem"):
        with torch.device("meta"):
            net = create_embedder(name, pretrained=False)
        assert net.name == name and parse_spec(name)
