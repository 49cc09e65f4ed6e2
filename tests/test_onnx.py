"""Encoders of anybody's in ONNX files, and nets without PyTorch."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save
from skimage import data

from imret.core import ImretError, SpecError, l2_normalize
from imret.features import extract, extract_multiscale, read_image, resize_image
from imret.features.multiscale import scale_power
from imret.features.resample import resample
from imret.nets import create_embedder, export_onnx
from imret.nets.onnx import ENGINES, ExportError, load_onnx, read_card, read_metadata
from imret.nets.preprocess import Preprocess

each_engine = pytest.mark.parametrize("engine", ENGINES)
GIVEN = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LOOK = Preprocess(tuple(GIVEN["mean"]), tuple(GIVEN["std"]))
MATRIX = np.random.default_rng(0).standard_normal((3 * 16, 40)).astype(np.float32)


def write(file, shape, nodes, outputs, weights=(), image="image", kind=TensorProto.FLOAT):
    "A graph from one input."
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(image, kind, shape)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(w, name) for name, w in weights],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def encoder(file, shape, layout="nchw"):
    "Means over a grid of 4 x 4, times a matrix: a vector that depends on channels and places."
    nodes, x = [], "image"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [x], ["first"], perm=[0, 3, 1, 2]))
        x = "first"
    nodes += [
        helper.make_node("AveragePool", [x], ["grid"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["grid"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["vector"]),
    ]
    return write(file, shape, nodes, ["vector"], [("matrix", MATRIX)])


def wanted(pixels, look=LOOK):
    "The same by NumPy, in float64."
    x = look(pixels).astype(np.float64).reshape(len(pixels), 3, 4, 8, 4, 8).mean(axis=(3, 5))
    return l2_normalize(x.reshape(len(pixels), -1) @ MATRIX.astype(np.float64))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@each_engine
@pytest.mark.parametrize("batch", ["n", 1], ids=["any batch", "batch 1"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("bgr", [False, True], ids=["rgb", "bgr"])
def test_foreign_encoders(tmp_path, pixels, engine, batch, layout, bgr):
    shape = [batch, 3, 32, 32] if layout == "nchw" else [batch, 32, 32, 3]
    net = load_onnx(encoder(tmp_path / "e.onnx", shape, layout), engine, bgr=bgr, **GIVEN)
    assert (net.dim, net.card.size, net.card.layout) == (40, 32, layout)
    look = Preprocess(LOOK.mean, LOOK.std, bgr=bgr)
    found = net.inference()(pixels)
    assert (found * wanted(pixels, look)).sum(axis=1).min() > 0.99999
    tensors = net.inference()(torch.from_numpy(pixels))
    assert np.array_equal(tensors.numpy(), found)


@each_engine
def test_extract_and_describe(tmp_path, pixels, engine):
    net = load_onnx(encoder(tmp_path / "e.onnx", ["n", 3, 32, 32]), engine, **GIVEN)
    found = extract(net, list(pixels), image_size=32, resize="square", progress=False)
    assert np.array_equal(found, net.inference()(pixels))
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    photos = [data.astronaut(), data.rocket()]
    squares = [resize_image(p, 32, resize="square") for p in photos]
    found = extract(net, photos, image_size=32, resize="square", progress=False)
    assert np.array_equal(found, net.inference()(np.stack(squares)))
    assert extract(net, [], image_size=32, resize="square", progress=False).shape == (0, 40)
    for wrong in ({"image_size": 32}, {"image_size": 64, "resize": "square"}):
        with pytest.raises(ImretError, match=r"32 x 32 alone: say image_size=32, resize='square'"):
            extract(net, photos, progress=False, **wrong)
    with pytest.raises(
        ExportError, match=rf"e.onnx.*: {engine} cannot run it on images of 32 x 64"
    ):
        net.inference()(np.zeros((1, 32, 64, 3), np.uint8))
    with pytest.raises(ImretError, match="32 x 32 alone"):
        extract_multiscale(net, photos, image_size=32, resize="square", progress=False)


def test_settings_from_a_table_and_from_arguments(tmp_path, pixels):
    file = encoder(tmp_path / "my encoder.onnx", ["n", 3, 32, 32])
    table = file.with_suffix(".toml")
    table.write_text("mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\nbgr = true\n")
    net = load_onnx(file, bgr=False)  # what is given wins
    assert net.preprocess == Preprocess(LOOK.mean, LOOK.std, image_size=32)
    assert net.name == f"onnx:'{file}',bgr=false"
    as_text = load_onnx(file, bgr=False, mean="0.485 0.456 0.406")
    assert as_text.preprocess == net.preprocess
    table_alone = load_onnx(file)
    assert table_alone.preprocess.bgr and table_alone.fingerprint() != net.fingerprint()
    assert load_onnx(file, bgr=False).fingerprint() == net.fingerprint()
    plain = load_onnx(file, normalize=False)
    assert not np.allclose(np.linalg.norm(plain.inference()(pixels), axis=1), 1)
    assert load_onnx(file, card=net.card).card == net.card == read_card(file, bgr=False)
    table.write_text("mean = [0.485")
    with pytest.raises(ExportError, match="my encoder.toml cannot be read as TOML"):
        load_onnx(file)


def test_what_is_missing_is_named(tmp_path):
    file = encoder(tmp_path / "e.onnx", ["n", 3, "h", "w"])
    for some, lacking in (
        ({}, "give mean, std to load_onnx or in e.toml"),
        ({"mean": 0.5}, "give std to"),
        (GIVEN, "give size to"),
    ):
        with pytest.raises(ExportError, match=rf"e.onnx does not say .*{lacking}"):
            load_onnx(file, **some)
    net = load_onnx(file, size=32, **GIVEN)
    assert net.card.size is None and net.preprocess.image_size == 32
    free = encoder(tmp_path / "free.onnx", ["n", "a", "b", "c"])
    with pytest.raises(ExportError, match="give layout to"):
        load_onnx(free, size=32, **GIVEN)
    assert load_onnx(free, size=32, layout="nchw", **GIVEN).dim == 40


def node(op, *names, **how):
    return helper.make_node(op, list(names[:-1]), [names[-1]], **how)


MAP, GRID = node("Identity", "image", "map"), node("GlobalAveragePool", "image", "mean")


def test_outputs_that_are_no_vector(tmp_path):
    file = tmp_path / "odd.onnx"
    shape = np.array([0, 3, 64])
    write(file, ["n", 3, 8, 8], [MAP, GRID], ["map", "mean"])
    said = r"odd.onnx gives map of shape \(1, 3, 8, 8\) .*name another with output=, of map, mean"
    with pytest.raises(ExportError, match=said):
        load_onnx(file, **GIVEN)
    assert load_onnx(file, output="mean", **GIVEN).dim == 3
    with pytest.raises(SpecError, match="unknown output of .*odd.onnx 'men': .*did you mean mean"):
        load_onnx(file, output="men", **GIVEN)
    nodes = [node("Reshape", "image", "shape", "tokens")]
    write(file, ["n", 3, 8, 8], nodes, ["tokens"], [("shape", shape)])
    with pytest.raises(ExportError, match=r"tokens of shape \(1, 3, 64\)"):
        load_onnx(file, **GIVEN)
    nodes = [node("ReduceMean", "image", "number", keepdims=0)]
    write(file, ["n", 3, 8, 8], nodes, ["number"])
    with pytest.raises(ExportError, match=r"number of shape \(\)"):
        load_onnx(file, **GIVEN)


@pytest.mark.parametrize(
    "shape, kind, more, said",
    [
        (["n", 3, 8, 9], TensorProto.FLOAT, {}, "height and width must be equal"),
        (["n", 3, 8, 8], TensorProto.FLOAT, {"size": 9}, "not of size=9"),
        (["n", 1, 8, 8], TensorProto.FLOAT, {}, "one axis must be 3 channels"),
        (["n", 3, 8], TensorProto.FLOAT, {}, "one batch of float32 images"),
        (["n", 3, 8, 8], TensorProto.DOUBLE, {}, r"tensor\(double\)"),
        ([4, 3, 8, 8], TensorProto.FLOAT, {}, "cannot be run on an image"),
        (["n", 3, 8, 8], TensorProto.FLOAT, {"size": True}, "size is a number of pixels"),
        (["n", 3, 8, 8], TensorProto.FLOAT, {"interpolation": "cubic"}, "did you mean bicubic"),
        (["n", 3, 8, 8], TensorProto.FLOAT, {"mean": [1, 2]}, "mean is one number or three"),
        (["n", 3, 8, 8], TensorProto.FLOAT, {"std": [1, 0, 1]}, "std must be > 0"),
    ],
)
def test_what_cannot_be_a_net(tmp_path, shape, kind, more, said):
    file = write(tmp_path / "odd.onnx", shape, [MAP], ["map"], kind=kind)
    with pytest.raises(ImretError, match=rf"odd.onnx.*{said}"):
        load_onnx(file, **GIVEN | more)


# Nets of our own


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    net = create_embedder("efficientnet_lite0-gem")
    file = tmp_path_factory.mktemp("onnx") / "lite0.onnx"
    export_onnx(net, file)
    return net, file


PHOTOS = [data.astronaut(), data.chelsea(), data.rocket(), data.coffee(), data.brick()]


def test_own_files_say_what_they_are(lite0):
    net, file = lite0
    assert set(read_metadata(file.read_bytes())) == {"imret"}
    found = load_onnx(file)
    assert found.card.power == scale_power(net) == scale_power(found) == 3.0
    assert found.card.size is None
    with pytest.raises(SpecError, match="says itself how it wants its images: leave out mean"):
        load_onnx(file, mean=0.5)


@each_engine
def test_bits_do_not_depend_on_batch_or_threads(lite0, engine):
    net, file = lite0
    x = np.stack([resize_image(read_image(p), 160, resize="square") for p in PHOTOS])
    found = [load_onnx(file, engine, threads=t).inference()(x) for t in (1, 2)]
    one = load_onnx(file, engine, threads=1).inference()
    found.append(np.concatenate([one(x[i : i + 1]) for i in range(len(x))]))
    before = torch.get_num_threads()
    for threads, batch_size in ((1, 1), (1, None), (2, 3)):
        torch.set_num_threads(threads)
        net_here = load_onnx(file, engine)
        how = {"image_size": 160, "resize": "square", "batch_size": batch_size}
        found.append(extract(net_here, PHOTOS, progress=False, **how))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert np.array_equal(other, found[0])
    wanted = extract(net, PHOTOS, image_size=160, resize="square", device="cpu", progress=False)
    assert (wanted * found[0]).sum(axis=1).min() >= 0.99999


def test_each_engine_has_a_cache_of_its_own(lite0, tmp_path):
    net, file = lite0
    nets = [net, *(load_onnx(file, engine) for engine in ENGINES)]
    for each in nets:
        how = {"image_size": 160, "cache_dir": tmp_path, "device": "cpu", "progress": False}
        extract(each, PHOTOS[:1], **how)
    folders = os.listdir(tmp_path)
    assert len(folders) == 3 and all(f.startswith(net.fingerprint()) for f in folders)


WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "torchvision", "onnx"):
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
from imret.features import describe, extract
from imret.nets import load_onnx
net = load_onnx(sys.argv[1])
found = extract(net, sys.argv[3:], progress=False)
assert np.array_equal(describe(net, sys.argv[3:], progress=False), found)
assert not {"pandas", "imret.datasets"} & set(sys.modules)
np.save(sys.argv[2], found)
"""


def test_without_torch_timm_and_onnx(lite0, tmp_path):
    "From a photograph's file to its vector: the bits of a process that has PyTorch."
    from PIL import Image

    photos = []
    for i, photo in enumerate(PHOTOS):
        photos.append(str(tmp_path / f"{i}.jpg"))
        Image.fromarray(photo).save(photos[-1])
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT), lite0[1], tmp_path / "v.npy"]
    done = subprocess.run([*command, *photos], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "v.npy")
    with_torch = extract(load_onnx(lite0[1]), photos, progress=False)
    assert (found * with_torch).sum(axis=1).min() >= 0.99999
    if SAME_BITS:
        assert np.array_equal(found, with_torch)
    net = extract(lite0[0], photos, device="cpu", progress=False)
    assert (found * net).sum(axis=1).min() >= 0.99999


# Resizing

SAME_BITS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
sides = st.integers(1, 200)


@settings(max_examples=150, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(["bicubic", "bilinear"]))
def test_resample_is_torch_to_the_bit(old_h, old_w, h, w, how):
    pixels = np.ascontiguousarray(data.chelsea()[:old_h, :old_w])
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    x = F.interpolate(x, (h, w), mode=how, antialias=True)
    off = np.abs(resample(pixels, (h, w), how).astype(int) - x[0].permute(1, 2, 0).numpy())
    assert off.max() <= (0 if SAME_BITS else 2)
