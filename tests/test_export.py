"""Nets as ONNX files: the same vectors at odd sizes, and one clear error for what is wrong."""

import gc
import importlib
import json
import os
import threading

import numpy as np
import onnx
import pytest
import torch

from imret.core import ImretError
from imret.features import extract
from imret.nets import create_embedder
from imret.nets.backbones import Preprocess
from imret.nets.export import export_onnx
from imret.nets.inference import has_bf16
from imret.nets.onnx import ENGINES, ExportError, load_onnx

each_engine = pytest.mark.parametrize("engine", ENGINES)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def engines_end_here():
    "What runs nets is let go by the thread that made it, not by whichever collects garbage next."
    yield
    gc.collect()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    glasses = Preprocess.caffe(96)
    return create_embedder("mobilenetv3_small_050-gem:p=4-whiten:32", False, preprocess=glasses)


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "deep" / "net.onnx"
    export_onnx(net, file)
    assert os.listdir(file.parent) == ["net.onnx"]
    return file


@each_engine
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 33, 200), (3, 3, 97, 31), (5, 3, 64, 64)])
def test_odd_sizes(net, file, engine, shape):
    other = load_onnx(file, engine, threads=1)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert (net(x) - other(x)).abs().max() <= 1e-4
    odd = x.flip(-1).to(memory_format=torch.channels_last)  # neither contiguous nor in that order
    with torch.inference_mode():
        assert (net(odd) - other(odd)).abs().max() <= 1e-4


@each_engine
def test_what_the_file_says(net, file, engine):
    other = load_onnx(file, engine)
    for name in ("name", "dim", "stride", "preprocess"):
        assert getattr(other, name) == getattr(net, name)
    assert other.fingerprint() == net.fingerprint() and engine in repr(other)
    assert onnx.load(file).opset_import[0].version == 17
    onnx.checker.check_model(str(file), full_check=True)


@each_engine
def test_many_threads(net, file, engine):
    other = load_onnx(file, engine, threads=2)
    x = torch.randn(6, 2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wanted = [net(b) for b in x]
    worst = [0.0] * len(x)

    def work(i):
        for _ in range(10):
            worst[i] = max(worst[i], (other(x[i]) - wanted[i]).abs().max().item())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert max(worst) <= 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t-lwhiten-regional-rwhiten",
        "vit_tiny_patch16_224-cls",
        "resnet10t-rmac",
    ],
)
def test_of_one_size(name, tmp_path):
    torch.manual_seed(0)
    net = create_embedder(name, pretrained=False)
    side = 224 if name.startswith("vit") else 80
    table = export_onnx(net, tmp_path / "net.onnx", image_size=side, dynamic=False)
    assert table["height"].unique().tolist() == [side]
    other, x = load_onnx(tmp_path / "net.onnx"), torch.randn(2, 3, side, side)
    with torch.inference_mode():
        assert (net(x) - other(x)).abs().max() <= 1e-4


def test_soa_and_local_whitening_at_any_size(tmp_path):
    torch.manual_seed(0)
    net = create_embedder("resnet10t-soa:45-lwhiten-gemcars-whiten:16", pretrained=False).train()
    assert len(export_onnx(net, tmp_path / "net.onnx", image_size=64)) == 3
    assert net.training and all(p.requires_grad for p in net.whiten.parameters())


def test_frozen_sizes_are_found_and_nothing_is_written(tmp_path):
    torch.manual_seed(0)
    net = create_embedder("resnet10t-rmac", pretrained=False)
    (tmp_path / "net.onnx").write_bytes(b"older")
    with pytest.raises(ExportError, match=r"3 pictures of 72 x 101.*dynamic=False"):
        export_onnx(net, tmp_path / "net.onnx", image_size=96)
    assert (tmp_path / "net.onnx").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_an_operator_that_onnx_has_not(tmp_path, capfd):
    net = create_embedder("resnet10t-gem", pretrained=False)
    net.pool.pool = lambda x: x.mT.mean(dim=(-2, -1))
    with pytest.raises(ExportError, match="resnet10t-gem cannot be exported .*mT"):
        export_onnx(net, tmp_path / "net.onnx", image_size=64)
    assert not os.listdir(tmp_path) and capfd.readouterr() == ("", "")


def test_what_is_no_file_of_ours(file, tmp_path):
    content = file.read_bytes()
    other = onnx.load(file)
    del other.metadata_props[:]
    newer = onnx.load(file)
    onnx.helper.set_model_props(newer, {"imret": json.dumps({"version": 99})})
    half = onnx.load(file)
    onnx.helper.set_model_props(half, {"imret": json.dumps({"version": 1, "name": "a-gem"})})
    faults = {
        "no ONNX file": b"these are no pictures of a graph",
        "no ONNX file, or damaged": content[: len(content) // 2],
        "write it with export_onnx": other.SerializeToString(),
        "does not say which net": b"",
        "update imret": newer.SerializeToString(),
        "which net it is and how": half.SerializeToString(),
    }
    for words, found in faults.items():
        (tmp_path / "odd.onnx").write_bytes(found)
        with pytest.raises(ExportError, match=words):
            load_onnx(tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match="there is no file"):
        load_onnx(tmp_path)


@each_engine
def test_a_graph_that_no_engine_knows(file, tmp_path, engine):
    model = onnx.load(file)
    model.graph.node[0].op_type = "Convolute"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match=f"{engine} cannot read"):
        load_onnx(tmp_path / "odd.onnx", engine)


def test_arguments(net, file, tmp_path):
    for wrong, words in (
        (lambda: load_onnx(file, "tensorrt"), "'tensorrt': known are onnxruntime, openvino"),
        (lambda: load_onnx(file, threads=0), "threads is at least 1"),
        (lambda: load_onnx(file, dtype="float16"), "dtype is one of float32, bfloat16"),
        (lambda: load_onnx(file, dtype="bfloat16"), "engine='openvino'"),
        (lambda: export_onnx(net, tmp_path / "a.onnx", image_size=-3), "positive"),
        (lambda: export_onnx(net, tmp_path / "a.onnx", tolerance=0), "positive"),
    ):
        with pytest.raises(ImretError, match=words):
            wrong()
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "openvino"])
def test_missing_packages(net, file, tmp_path, monkeypatch, missing):
    real = importlib.import_module

    def without(name, *args):
        if name == missing:
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    mend = rf"{missing} is not installed: pip install 'imretrieval\[export\]'"
    if missing != "onnx":  # reading needs an engine and no more
        with pytest.raises(ExportError, match=mend):
            load_onnx(file, "openvino" if missing == "openvino" else "onnxruntime")
    if missing != "openvino":
        with pytest.raises(ExportError, match=mend):
            export_onnx(net, tmp_path / "net.onnx")
    assert not os.listdir(tmp_path)


@each_engine
def test_extract(net, file, engine, tmp_path):
    seed = np.random.default_rng(0)
    images = [seed.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((60, 90), (90, 60), (70, 70))]
    wanted = extract(net, images, image_size=96, device="cpu", progress=False)
    other = load_onnx(file, engine)
    kept = tmp_path / "cache"
    for _ in range(2):
        found = extract(other, images, image_size=96, cache_dir=kept, progress=False)
        np.testing.assert_allclose(found, wanted, atol=2e-4)
    with pytest.raises(ImretError, match="float32"):
        extract(other, images, dtype="bfloat16", progress=False)


def test_bfloat16(tmp_path):
    torch.manual_seed(0)
    net = create_embedder("resnet18-gem", pretrained=False)
    export_onnx(net, tmp_path / "net.onnx", image_size=64)
    half = load_onnx(tmp_path / "net.onnx", "openvino", dtype="bfloat16")
    assert half.dtype == ("bfloat16" if has_bf16() else "float32")
    seed = np.random.default_rng(0)
    images = [seed.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((60, 90), (90, 60), (70, 70))]
    wanted = extract(net, images, image_size=96, device="cpu", progress=False)
    kept = tmp_path / "cache"
    for dtype in ("float32", "float32", "bfloat16")[: 3 if has_bf16() else 2]:
        found = extract(half, images, image_size=96, dtype=dtype, cache_dir=kept, progress=False)
        assert (found * wanted).sum(axis=1).min() >= 0.999


def test_bfloat16_is_refused_aloud(net, file, monkeypatch):
    monkeypatch.setattr("imret.nets.inference.has_bf16", lambda: True)
    monkeypatch.setattr("imret.nets.onnx._cosine", lambda *_: 0.9)
    with pytest.warns(UserWarning, match="loses too much in bfloat16 .cosine 0.900."):
        assert load_onnx(file, "openvino", dtype="bfloat16").dtype == "float32"
    monkeypatch.setattr("imret.nets.inference.has_bf16", lambda: False)
    assert load_onnx(file, "openvino", dtype="bfloat16").dtype == "float32"  # without a word


@each_engine
def test_an_engine_for_each_number_of_threads(file, engine, monkeypatch):
    made = []

    def make(content, threads, streams, dtype, output):
        made.append((threads, streams))
        return lambda x: x

    monkeypatch.setitem(ENGINES._things, engine, make)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    other = load_onnx(file, engine)
    for threads in (4, 1, 1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        other(torch.zeros(1, 3, 8, 8))
    assert made == [(4, 1), (1, 4), (2, 2)]
