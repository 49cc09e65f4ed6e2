"""Nets on disk: whole or not at all, nothing executed; tables that add up; others' files."""

import copy
import os

import pytest
import torch
from torch import nn

from imret.core import ImretError
from imret.nets import (
    EmbeddingNet,
    Preprocess,
    WeightsError,
    create_embedder,
    describe,
    diff,
    freeze,
    load_net,
    save_net,
)


@pytest.fixture(autouse=True)
def one_thread():
    "Steady times on a busy machine."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NAMES = [
    "resnet18-soa:45-lwhiten-gem:p=4-whiten:64",
    "resnet18-regional-rwhiten",
    "mobilenetv3_small_050-head",
    "vit_tiny_patch16_224-cls-whiten:32",
    "torchvision/resnet18.IMAGENET1K_V1-mac",
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
