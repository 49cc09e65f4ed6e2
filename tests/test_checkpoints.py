"""Nets on disk: whole or not at all, nothing executed; tables that add up; others' files."""

import copy
import os
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torchvision
from sklearn.decomposition import PCA
from torch import nn
from torch.nn.functional import normalize

from imret.core import ImretError
from imret.nets import (
    EmbeddingNet,
    Preprocess,
    WeightsError,
    create_embedder,
    create_head,
    describe,
    diff,
    freeze,
    import_net,
    load_net,
    save_net,
)
from imret.nets.importers import translate

pytestmark = pytest.mark.usefixtures("one_thread")


NAMES = [
    "resnet18-soa:45-lwhiten-gem:p=4-whiten:64",
    "resnet18-regional-rwhiten",
    "mobilenetv3_small_050-head",
    "vit_tiny_patch16_224-cls-whiten:32",
    "torchvision/resnet18.IMAGENET1K_V1-mac",
    "resnet18-spoc-hash:16",
]


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name, tmp_path):
    net = create_embedder(name, pretrained=False, preprocess=Preprocess.caffe(320))
    again = load_net(save_net(net, tmp_path / "deep" / "net.pth"))
    assert again.name == net.name and again.preprocess == net.preprocess and not again.training
    assert again.fingerprint() == net.fingerprint() and len(diff(net, again)) == 0
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net(x), again(x))
    assert os.listdir(tmp_path / "deep") == ["net.pth"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    net = create_embedder("mobilenetv3_small_050-gem", pretrained=False)
    file = save_net(net, tmp_path / "net.pth")
    before = file.read_bytes()

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_net(net, file)
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["net.pth"]


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was executed')",)


def test_what_is_no_file_of_ours(tmp_path):
    net = create_embedder("mobilenetv3_small_050-gem", pretrained=False)
    file = save_net(net, tmp_path / "net.pth")
    content = torch.load(file, weights_only=True)
    faults = {
        "update imret": content | {"imret": 99},
        "not written by save_net": content["state_dict"],
        "cannot be read": content | {"extra": Evil()},
        "damaged": content | {"state_dict": {k: t + 1 for k, t in content["state_dict"].items()}},
        "1 missing": content
        | {"state_dict": {k: t for k, t in content["state_dict"].items() if k != "pool.p"}},
    }
    for said, wrong in faults.items():
        torch.save(wrong, file)
        with pytest.raises(WeightsError, match=said) as e:
            load_net(file)
        assert "net.pth" in str(e.value) and "\n" not in str(e.value)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_net(file)
    with pytest.raises(WeightsError, match="no weights file"):
        load_net(tmp_path / "nowhere.pth")


def of_version_0_1_0(name: str, bits: int, head: str | None) -> dict:
    "What `HeadedNet.save` of version 0.1.0 wrote of a net with a head behind the net `name`."
    net = create_embedder(name, pretrained=False, preprocess=Preprocess.caffe(320))
    layer = create_head(head or "linear", net.dim, bits)
    state = net.state_dict() | {f"head.{k}": t for k, t in layer.state_dict().items()}
    told = {"headed": [name, bits, head] if head else None, "preprocess": asdict(net.preprocess)}
    return told | {"state_dict": state}


@pytest.mark.parametrize("head", ["linear", "divide_encode"])
def test_a_headed_net_of_version_0_1_0(head, tmp_path):
    file = tmp_path / "best.pth"
    torch.manual_seed(0)
    content = of_version_0_1_0("resnet18-spoc", 8, head)
    torch.save(content, file)
    net = load_net(file)
    assert net.name == f"resnet18-spoc-{head}:8" and net.dim == 8 and not net.training
    assert net.preprocess == Preprocess.caffe(320)
    body = create_embedder("resnet18-spoc", pretrained=False)
    state = content["state_dict"]
    body.load_state_dict({k: t for k, t in state.items() if not k.startswith("head.")})
    layer = create_head(head, 512, 8)
    layer.load_state_dict({k[5:]: t for k, t in state.items() if k.startswith("head.")})
    with torch.inference_mode():
        assert torch.equal(net(X), layer(body.pool(body.backbone(X))))
    again = load_net(save_net(net, tmp_path / "again.pth"))
    assert again.fingerprint() == net.fingerprint()
    also = create_embedder(net.name, weights=file)
    assert also.fingerprint() == net.fingerprint()
    state.pop(next(k for k in state if k.startswith("head.")))
    torch.save(content, file)
    with pytest.raises(WeightsError, match="best.pth are of another net: 1 missing .head"):
        load_net(file)


def test_one_loader_for_all(tmp_path):
    "Files of other toolboxes, and what is told of files that say no net."
    file = tmp_path / "net.pth"
    state = cirtorch("resnet18", gem()).state_dict()
    torch.save({"meta": meta("resnet18"), "state_dict": state}, file)
    assert load_net(file).fingerprint() == import_net(file).fingerprint()
    for wrong in (of_version_0_1_0("resnet18-spoc", 8, None), [torch.zeros(1)], {"a": 1}):
        torch.save(wrong, file)
        with pytest.raises(WeightsError, match="does not say which net it holds") as e:
            load_net(file)
        assert "net.pth" in str(e.value) and "\n" not in str(e.value)
    torch.save({"imret_training": 1, "net": {}}, file)
    with pytest.raises(WeightsError, match="its best net is best.pth beside it"):
        load_net(file)
    torch.save({"model_options": {"arch": "alexnet"}, "state_dict": {}}, file)
    with pytest.raises(WeightsError, match="net.pth cannot be imported"):
        load_net(file)


def test_a_net_without_a_name_is_not_saved(tmp_path):
    net = create_embedder("resnet18-gem", pretrained=False)
    odd = EmbeddingNet(net.backbone, net.pool, net.name, whiten=nn.Linear(512, 64))
    with pytest.raises(ImretError, match="'resnet18-gem' does not make this net .whiten"):
        save_net(odd, tmp_path / "net.pth")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 2, 9])
def test_describe_adds_up(name, depth):
    net = freeze(create_embedder(name, pretrained=False), until=2).train()
    table = describe(net, depth=depth).set_index("layer")
    assert table.index.is_unique and net.training
    total = table.loc["total"]
    assert total["parameters"] == sum(p.numel() for p in net.parameters())
    assert total["learning"] == sum(p.numel() for p in net.parameters() if p.requires_grad)
    held = [*net.parameters(), *net.buffers()]
    assert abs(total["megabytes"] - sum(t.numel() * t.element_size() for t in held) / 1e6) < 1e-3
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_describe_shapes():
    net = create_embedder("resnet18-soa:4-gem-whiten:64", pretrained=False)
    shapes = describe(net, (96, 160)).set_index("layer")["shape"]
    assert shapes["backbone.model.layer3"] == shapes["backbone.attention.4"] == "256 x 6 x 10"
    assert [*shapes.index].index("backbone.attention.4") > [*shapes.index].index(
        "backbone.model.layer3"
    )
    assert (shapes["pool"], shapes["whiten"], shapes["total"]) == ("512", "64", "64")


def test_diff_says_what():
    a = create_embedder("resnet18-gem", pretrained=False)
    b = copy.deepcopy(a)
    with torch.no_grad():
        b.backbone.model.bn1.running_var.mul_(2)
    table = diff(a, b)
    assert table[["what", "name"]].values.tolist() == [["values", "backbone.model.bn1"]]
    c = create_embedder("resnet34-soa:4-mac", pretrained=False, preprocess=Preprocess())
    table = diff(a, c)
    parts = table[table["what"] == "part"].set_index("name")[["left", "right"]]
    assert parts.loc["backbone"].tolist() == ["resnet18", "resnet34"]
    assert parts.loc["soa"].tolist() == [None, "soa:4"]
    assert parts.loc["pooling"].tolist() == ["gem", "mac"]
    assert {"mean", "std"} <= {*table[table["what"] == "preprocess"]["name"]}
    assert "backbone.model.layer1.2.conv1.weight" in {*table[table["what"] == "shape"]["name"]}


# Other toolboxes' files. The names of their tensors are made as they make them: by putting the
# children of torchvision's nets, which all three build on, into modules of the same names.


def module(**children) -> nn.Module:
    found = nn.Module()
    for name, child in children.items():
        setattr(found, name, child)
    return found


def gem(p: float = 2.7, n: int = 1) -> nn.Module:
    return module(p=nn.Parameter(torch.full((n,), p)))


def pooled(f: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    p = p.view(-1, 1, 1)
    return f.clamp(min=1e-6).pow(p).mean((2, 3), keepdim=True).pow(1 / p)[:, :, 0, 0]


def meta(architecture: str, pooling: str = "gem", **more) -> dict:
    about = {"architecture": architecture, "pooling": pooling, "outputdim": 512}
    about |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "regional": False}
    return about | {"local_whitening": False, "whitening": False} | more


def cirtorch(architecture: str, pool: nn.Module | None, dim: int = 512, **layers) -> nn.Module:
    "cirtorch/networks/imageretrievalnet.py in filipradenovic/cnnimageretrieval-pytorch."
    net = getattr(torchvision.models, architecture)(weights=None)
    vgg = architecture.startswith("vgg")
    children = [*net.features.children()][:-1] if vgg else [*net.children()][:-2]
    layers = {k: nn.Linear(dim, dim) for k in layers}
    return module(features=nn.Sequential(*children), pool=pool or nn.Module(), **layers).eval()


def solar_block(dim: int, k: int) -> nn.Module:
    "SOABlock of solar_global/networks/networks.py in tonyngjichun/SOLAR."
    mid = dim // k

    def seen():
        return nn.Sequential(nn.Conv2d(dim, mid, 1), nn.BatchNorm2d(mid), nn.ReLU())

    return module(f=seen(), g=seen(), h=nn.Conv2d(dim, mid, 1), v=nn.Conv2d(mid, dim, 1))


def solar(architecture: str = "resnet18", dim: int = 512) -> nn.Module:
    "ResNetSOAs, and the net around it, of tonyngjichun/SOLAR."
    blocks = [*getattr(torchvision.models, architecture)(weights=None).children()][:-2]
    features = module(
        conv1=nn.Sequential(*blocks[0:2]),
        conv2_x=nn.Sequential(*blocks[2:5]),
        conv3_x=blocks[5],
        conv4_x=blocks[6],
        conv5_x=blocks[7],
        soa4=solar_block(dim // 2, 4),
        soa5=solar_block(dim, 2),
    )
    return module(features=features, pool=gem(), whiten=nn.Linear(dim, dim)).eval()


def dirtorch(architecture: str = "resnet18", dim: int = 512, out: int = 64) -> nn.Module:
    "ResNet_RMAC of dirtorch/nets/rmac_resnet.py in naver/deep-image-retrieval."
    net = getattr(torchvision.models, architecture)(weights=None)
    children = {k: m for k, m in net.named_children() if k not in ("avgpool", "fc")}
    return module(**children, adpool=gem(), fc=nn.Linear(dim, out)).eval()


X = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ["resnet18", "vgg11"])
def test_cirtorch(architecture, tmp_path):
    theirs = cirtorch(architecture, gem(), lwhiten=1, whiten=1)
    whitened = {"m": np.zeros((512, 1)), "P": np.eye(512)}
    about = meta(architecture, local_whitening=True, whitening=True, Lw={"set": {"ss": whitened}})
    torch.save({"meta": about, "state_dict": theirs.state_dict()}, tmp_path / "net.pth")
    net = import_net(tmp_path / "net.pth")
    assert net.name.removeprefix("torchvision/") == f"{architecture}-lwhiten-gem-whiten"
    assert net.preprocess.mean == (0.4, 0.5, 0.6) and net.preprocess.interpolation == "lanczos"
    with torch.inference_mode():
        f = theirs.lwhiten(theirs.features(X).movedim(1, -1)).movedim(-1, 1)
        v = normalize(theirs.whiten(normalize(pooled(f, theirs.pool.p))))
        assert torch.allclose(net(X), v, atol=1e-5)


@pytest.mark.parametrize(
    "pooling, regional, name",
    [
        ("mac", False, "resnet18-mac"),
        ("spoc", False, "resnet18-spoc"),
        ("rmac", False, "resnet18-rmac"),
        ("gemmp", False, "resnet18-gem:per_channel=true"),
        ("gem", True, "resnet18-regional-rwhiten"),
        ("mac", True, "resnet18-regional:inner=mac-rwhiten"),
    ],
)
def test_cirtorch_poolings(pooling, regional, name, tmp_path):
    pool = {"gem": gem(), "gemmp": gem(n=512)}.get(pooling, nn.Module())
    if regional:
        pool = module(rpool=pool, whiten=nn.Linear(512, 512))
    theirs = cirtorch("resnet18", pool)
    about = meta("resnet18", pooling, regional=regional)
    torch.save({"meta": about, "state_dict": theirs.state_dict()}, tmp_path / "net.pth")
    net = import_net(tmp_path / "net.pth")
    assert net.name == name
    ours = sorted(float(t.double().sum()) for t in net.state_dict().values())
    assert ours == sorted(float(t.double().sum()) for t in theirs.state_dict().values())


def test_solar(tmp_path):
    theirs = solar()
    state = theirs.state_dict()
    for key, t in state.items():
        if "soa" in key and t.is_floating_point() and "var" not in key:
            t.normal_(0, 0.05)
    about = meta("resnet18", whitening=True, soa=True, soa_layers="45")
    state["features.soa4.gamma"] = torch.zeros(1)
    torch.save({"meta": about, "state_dict": state}, tmp_path / "net.pth")
    net = create_embedder("resnet18-soa:45-gem-whiten", weights=tmp_path / "net.pth")
    features = theirs.features

    def attended(block, x):
        f, g, h = (part(x).flatten(2) for part in (block.f, block.g, block.h))
        attention = torch.softmax(f.mT @ g * f.shape[1] ** -0.5, dim=-1)
        return block.v((attention @ h.mT).mT.reshape(len(x), -1, *x.shape[2:])) + x

    with torch.inference_mode():
        f = features.conv4_x(features.conv3_x(features.conv2_x(features.conv1(X))))
        f = attended(features.soa5, features.conv5_x(attended(features.soa4, f)))
        v = normalize(theirs.whiten(normalize(pooled(f, theirs.pool.p))))
        assert torch.allclose(net(X), v, atol=1e-5)


@pytest.mark.parametrize("norm_features", [False, True])
def test_dirtorch(norm_features, tmp_path):
    theirs = dirtorch()
    options = {"arch": "resnet18_rmac", "out_dim": 64, "pooling": "gem", "gemp": 3}
    pca = PCA(2).fit(np.random.default_rng(0).normal(size=(9, 4)))
    torch.save(
        {
            "model_options": options | {"norm_features": norm_features},
            "state_dict": {f"module.{k}": t for k, t in theirs.state_dict().items()},
            "preprocess": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "input_size": 224},
            "pca": {"Landmarks_clean": pca},
        },
        tmp_path / "net.pt",
    )
    net = import_net(tmp_path / "net.pt")
    assert net.name == "resnet18-gem-whiten:64" + ("" if norm_features else ",raw=true")
    assert net.preprocess.mean == (0.1, 0.2, 0.3)
    with torch.inference_mode():
        f = nn.Sequential(*[*theirs.children()][:-2])(X)
        v = pooled(f, theirs.adpool.p)
        v = normalize(theirs.fc(normalize(v) if norm_features else v))
        assert torch.allclose(net(X), v, atol=1e-5)
    again = load_net(save_net(net, tmp_path / "ours.pth"))
    assert again.fingerprint() == net.fingerprint() and again.raw == net.raw


@pytest.mark.parametrize("toolbox", ["cirtorch", "solar", "dirtorch"])
def test_every_tensor_of_a_resnet101_has_its_place(toolbox):
    with torch.device("meta"):
        if toolbox == "dirtorch":
            state = dirtorch("resnet101", 2048, 2048).state_dict()
            content = {"model_options": {"arch": "resnet101_rmac"}, "state_dict": state}
        elif toolbox == "solar":
            about = meta("resnet101", whitening=True, soa_layers="45")
            content = {"meta": about, "state_dict": solar("resnet101", 2048).state_dict()}
        else:
            theirs = cirtorch("resnet101", gem(), 2048, whiten=1)
            content = {"meta": meta("resnet101", whitening=True)}
            content["state_dict"] = theirs.state_dict()
        found = translate(content, "net.pth")
        net = create_embedder(found.name, pretrained=False)
    shapes = {k: t.shape for k, t in net.state_dict().items()}
    assert {k: t.shape for k, t in found.state.items()} == shapes
    soa, raw = "-soa:45" * (toolbox == "solar"), ":raw=true" * (toolbox == "dirtorch")
    assert net.name == f"resnet101{soa}-gem-whiten{raw}"


def test_foreign_faults_are_named(tmp_path):
    file = tmp_path / "net.pth"
    state = cirtorch("resnet18", gem()).state_dict()
    old = {k: t for k, t in state.items() if "num_batches" not in k}
    torch.save({"meta": meta("resnet18"), "state_dict": old}, file)
    assert import_net(file).name == "resnet18-gem"
    faults = {
        "1 missing .backbone.model.conv1.weight": {
            k: t for k, t in state.items() if k != "features.0.weight"
        },
        "1 unknown .extra.weight": state | {"extra.weight": torch.zeros(1)},
        "of another shape .pool.p": state | {"pool.p": torch.zeros(2)},
    }
    for said, wrong in faults.items():
        torch.save({"meta": meta("resnet18"), "state_dict": wrong}, file)
        with pytest.raises(WeightsError, match=said):
            import_net(file)
    torch.save({"meta": meta("resnet18"), "state_dict": state}, file)
    with pytest.raises(WeightsError, match="net.pth is resnet18-gem, not resnet18-mac"):
        create_embedder("resnet18-mac", weights=file)
    torch.save({"meta": meta("resnet18"), "state_dict": state, "x": Evil()}, file)
    with pytest.raises(WeightsError, match="cannot be read"):
        import_net(file)
    torch.save(state, file)
    with pytest.raises(WeightsError, match="no checkpoint of cirtorch, SOLAR or dirtorch"):
        import_net(file)
    for content, said in (
        ({"meta": meta("densenet121")}, "ResNets and VGGs"),
        ({"model_options": {"arch": "resnet50_fpn_rmac"}}, "resnet18_rmac to"),
        ({"meta": {"architecture": "resnet18"}}, "pooling"),
    ):
        torch.save(content | {"state_dict": state}, file)
        with pytest.raises(WeightsError, match=said):
            import_net(file)


def test_saved_nets_as_weights(tmp_path):
    net = create_embedder("resnet18-gem", pretrained=False, preprocess=Preprocess.caffe())
    file = save_net(net, tmp_path / "net.pth")
    assert create_embedder("resnet18-gem", weights=file).fingerprint() == net.fingerprint()
