"""Descriptors and retrievers: names, directories, refusals; one thing from training to search."""

import tomllib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from imret.benchmark import Retriever, benchmark, check_apart, open_retriever
from imret.cli import main
from imret.core import DatasetError, SpecError
from imret.datasets import load_dataset
from imret.engine import SearchEngine
from imret.evaluation import Results, evaluate_hashing
from imret.features import (
    Descriptor,
    DescriptorError,
    DescriptorSpec,
    PCAWhitening,
    WhiteningError,
    describe,
    open_descriptor,
    pack_signs,
    read_spec,
)
from imret.features.spec import spec_from_dict, spec_to_dict
from imret.nets import create_embedder, export_onnx, save_net
from imret.search import BinaryIndex, FlatIndex

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = "astronaut", "chelsea", "coffee", "rocket"
NAME = "efficientnet_lite0-gem-size:64"
BITS = "resnet18-spoc-hash:64"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A benchmark of a few photographs, as folders of query and database."
    root = tmp_path_factory.mktemp("small")
    for name in NAMES:
        photo = Image.fromarray(getattr(data, name)()).resize((120, 90))
        for i in range(5):
            place = root / "judged" / ("database" if i else "query") / name
            place.mkdir(parents=True, exist_ok=True)
            photo.crop((i, 2 * i, 80 + i, 80)).save(place / f"{i}.png")
    return root / "judged"


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(folder)


@pytest.fixture(scope="module")
def net():
    return create_embedder("efficientnet_lite0-gem")


SETTINGS = {
    "net": st.sampled_from(
        ["resnet18-gem", "resnet18-gem:p=4-whiten:64", BITS, "onnx:'a b-c.onnx'"]
    ),
    "size": st.sampled_from([None, 1, 224, 320]),
    "scales": st.sampled_from([(1.0,), (1.0, 0.7071), (0.5,)]),
    "power": st.sampled_from(["plain", "net", 2.5, 3]),
    "flip": st.booleans(),
    "crop": st.sampled_from(["before", "after", "same_scale", "none"]),
    "whitening": st.sampled_from([None, "pca", "pca:dim=64", "learned:dim=8,pca=16", "it's.npz"]),
}


@given(st.fixed_dictionaries({}, optional=SETTINGS))
def test_a_spec_is_read_back_from_its_name_and_its_table(settings):
    if settings.get("net") == BITS:
        settings["whitening"] = None
    spec = DescriptorSpec(**settings)
    assert read_spec(str(spec)) == spec
    assert read_spec(str(read_spec(str(spec)))) == spec
    assert spec_from_dict(spec_to_dict(spec)) == spec


@pytest.mark.parametrize(
    "name, said",
    [
        ("efficientnet_lite0-gme", "did you mean gem"),
        ("efficientnet_lite0-gem-size:1-size:2", "sets size twice"),
        ("efficientnet_lite0-gem-mac", "gem and mac"),
        ("resnet18-hash", "bits"),
        ("resnet18-hash:0", "bits"),
        ("resnet18-pca-learned", "whitening twice"),
        ("resnet18-hash:64-pca", "not whitened"),
        ("resnet18-scales", "write scales:VALUE"),
        ("resnet18-net:'a.pth'", "net"),
        ("resnet18-whitening:pca", "is not the file"),
        ("net:'a.pth'-weights:'b.pth'", "leave weights out"),
        ("onnx:'a.onnx'-gem", "leave gem out"),
        ("resnet18-size:none-resize:square", "needs a size"),
        ("resnet18-onnx:'open", "not closed"),
        ("resnet18-size:12 | flat", "names a retriever"),
        ("", "a name is a string"),
    ],
)
def test_names_that_are_refused(name, said):
    with pytest.raises(SpecError, match=said):
        Descriptor(name)


@pytest.mark.parametrize(
    "name, said",
    [("a | b | c | d", "three parts"), (" | flat", "three parts"), (f"{NAME} | lopq", "flat")],
)
def test_retrievers_that_are_refused(name, said):
    with pytest.raises(SpecError, match=said):
        open_retriever(name)


def test_vectors_are_those_of_describe(dataset, net):
    d = Descriptor(net, size=64, scales="three", power="net", flip=True, crop="after")
    way = {"image_size": 64, "scales": "three", "power": None, "flip": True, "crop": "after"}
    wanted = describe(net, dataset.images, **way, progress=False)
    assert np.array_equal(d.extract(dataset.images, progress=False), wanted)


def test_two_are_equal_only_with_the_same_weights_and_whitening(dataset, net):
    d = Descriptor(f"{NAME}-pca:dim=4", net=net)
    with pytest.raises(DescriptorError, match=r"call fit\(dataset\)"):
        d.extract(dataset.images)
    d.fit(dataset.images, progress=False)
    assert d.whitening.fitted_on_ == "its own images" and d.dim == 4
    same = Descriptor(f"{NAME}-pca:dim=4", net=net).fit(dataset, progress=False)
    assert same == d and hash(same) == hash(d)
    assert Descriptor(f"{NAME}-pca:dim=4", net=net).fit(dataset.images[:9], progress=False) != d
    other = create_embedder("efficientnet_lite0-gem")
    with torch.no_grad():
        other.pool.p += 1
    assert Descriptor(other, size=64) != Descriptor(net, size=64)


def test_a_directory_that_was_damaged(tmp_path, net, dataset):
    d = Descriptor(net, size=64, whitening=PCAWhitening(3).fit(np.random.rand(9, 1280)))
    d = Descriptor(f"{NAME}-pca:dim=3", net=net, whitening=d.whitening)
    place = d.save(tmp_path / "d")
    about = (place / "descriptor.toml").read_text()
    for text, said in (
        (about.replace("format = 1", "format = 2"), "newer imret"),
        (about.replace("[net]", "[nett]"), "net is missing"),
        (about.replace("size = 64", "size = -64"), "size -64"),
        ("no toml at all = [", "cannot be read"),
    ):
        (place / "descriptor.toml").write_text(text)
        with pytest.raises((DescriptorError, SpecError), match=said):
            Descriptor.load(place)
    (place / "descriptor.toml").write_text(about)
    assert Descriptor.load(place) == d
    (place / "whitening.npz").unlink()
    with pytest.raises(WhiteningError, match="whitening.npz"):
        Descriptor.load(place)
    with pytest.raises(DescriptorError, match="holds no descriptor"):
        Descriptor.load(tmp_path)


def test_weights_that_changed_since(tmp_path, net, dataset):
    own = create_embedder("efficientnet_lite0-gem")
    with torch.no_grad():
        own.pool.p += 1
    place = Descriptor(own, size=64).save(tmp_path / "own")
    save_net(net, place / "net.pth")
    with pytest.raises(DescriptorError, match="have changed since"):
        Descriptor.load(place).extract(dataset.images[:1])
    packaged = Descriptor(net, size=64).save(tmp_path / "packaged")
    file = packaged / "descriptor.toml"
    table = tomllib.loads(file.read_text())["net"]
    assert "efficientnet" in table["source"] and "licence" in table
    file.write_text(file.read_text().replace(table["fingerprint"], "0" * 16))
    with pytest.raises(DescriptorError, match="have changed since"):
        Descriptor.load(packaged).net  # noqa: B018


def test_a_descriptor_from_a_file_beside_its_weights(tmp_path, net):
    save_net(net, tmp_path / "weights" / "a.pth")
    (tmp_path / "d.toml").write_text("net = \"net:'weights/a.pth'\"\nsize = 64\n")
    d = open_descriptor(tmp_path / "d.toml")
    assert d.net.fingerprint() == net.fingerprint() and d.spec.size == 64
    again = Descriptor.load(d.save(tmp_path / "elsewhere"))
    assert again.net.fingerprint() == net.fingerprint()
    (tmp_path / "d.toml").write_text("size = 0")
    with pytest.raises(SpecError, match="d.toml: size 0"):
        open_descriptor(tmp_path / "d.toml")


def test_options_that_disagree_are_one_line(folder, capsys):
    args = ["eval", str(folder), "--descriptor", f"{NAME}-flip"]
    for option, said in (("--image-size 65", "65"), ("--scales three", "three")):
        assert main([*args, *option.split()]) == 2
        error = capsys.readouterr().err
        assert "--descriptor" in error and said in error and error.count("\n") == 1
    assert main([*args, "--image-size", "64"]) == 0


def test_the_order_of_work_is_said_before_any_is_done(folder, monkeypatch):
    monkeypatch.setattr("imret.benchmark.load_benchmark", None)
    with pytest.raises(SpecError, match="unknown backbone"):
        benchmark("tinytown", "no_such-gem")
    with pytest.raises(DescriptorError, match="no file nowhere.onnx"):
        benchmark("tinytown", "onnx:'nowhere.onnx'")
    with pytest.raises(DescriptorError, match="call fit"):
        benchmark("tinytown", "efficientnet_lite0-pca")
    with pytest.raises(SpecError, match="features="):
        benchmark("tinytown", Retriever(None))


def test_what_is_judged_is_not_learned_from(dataset, net):
    d = Descriptor(f"{NAME}-pca:dim=4", net=net).fit(dataset, progress=False)
    with pytest.raises(WhiteningError, match="allow_test_fit"):
        benchmark(dataset, d)
    with pytest.warns(UserWarning, match="no estimate"):
        check_apart(d, dataset, allow_test_fit=True)


def test_features_and_codes_from_elsewhere(dataset):
    rng = np.random.default_rng(0)
    n, q = len(dataset.images), len(dataset.queries)
    vectors = rng.normal(size=(n + q, 16)).astype(np.float32)
    index = FlatIndex(16)
    index.add(vectors[:n])
    found = benchmark(dataset, None, features=vectors)
    assert found.retriever is None
    assert np.array_equal(found.ranking.ids, index.rank(vectors[n:]).ids)
    codes = pack_signs(vectors)
    found = benchmark(dataset, None, features=(codes[:n], codes[n:]))
    signs = np.where(vectors >= 0, 1, -1)
    distances = (16 - signs[n:] @ signs[:n].T) / 2
    for protocol, evaluation in found.items():
        wanted = evaluate_hashing(distances, dataset.truth, protocol)
        assert evaluation.summary["mAP"] == wanted.summary["mAP"]
    with pytest.raises(DatasetError, match=f"has {n} and {q}"):
        benchmark(dataset, None, features=vectors[1:])


@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**31))
def test_codes_are_ranked_as_their_signs(bits, n, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, bits)), rng.normal(size=(3, bits))
    index = BinaryIndex(bits)
    index.add(pack_signs(x))
    scores, ids = index.search(pack_signs(y), n)
    wanted = np.where(y >= 0, 1, -1) @ np.where(x >= 0, 1, -1).T / bits
    order = np.argsort(-wanted, axis=1, kind="stable")
    assert np.array_equal(ids, order)
    assert np.allclose(scores, np.take_along_axis(wanted, order, axis=1), atol=1e-6)
    gone = rng.permutation(n)[: n // 2]
    assert index.remove_ids(gone) == len(gone) and index.ntotal == n - len(gone)
    assert np.array_equal(index.codes, pack_signs(np.delete(x, gone, axis=0)))


def test_one_directory_is_trained_measured_indexed_and_searched(folder, dataset, tmp_path, capsys):
    args = ["train", "gem_contrastive", f"data.dataset={folder}", "train.epochs=1", "net.freeze=4"]
    args += ["view.image_size=64", "mining.queries=4", "mining.negatives=2", "mining.pool=8"]
    args += ["validate.queries=0", "data.validation=0"]
    assert main([*args, "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    place = tmp_path / "run" / "descriptor"
    vectors = Descriptor.load(place).extract(dataset.images, progress=False)
    assert not np.allclose(vectors, Descriptor(NAME).extract(dataset.images, progress=False))
    saved, results = tmp_path / "vectors.npy", tmp_path / "results"
    args = ["eval", str(folder), "--descriptor", str(place), "--save-features", str(saved)]
    assert main([*args, "--out", str(results)]) == 0
    assert np.array_equal(np.load(saved)[: len(vectors)], vectors)
    index = tmp_path / "index"
    assert main(["index", str(folder), "--out", str(index), "--descriptor", str(place)]) == 0
    engine = SearchEngine.open(index)
    where = [str(p.resolve()) for p in dataset.images]
    rows = [engine.items["path"].tolist().index(p) for p in where]
    assert np.array_equal(engine.index.reconstruct_n()[rows], vectors)
    found = engine.search(dataset.images[3], k=1)
    assert found["path"][0] == where[3] and round(found["score"][0], 4) == 1
    kept = Results.load(results)
    again = benchmark(dataset, engine.retriever, progress=False)
    assert {p: e.summary["mAP"] for p, e in kept.items()} == {
        p: e.summary["mAP"] for p, e in again.items()
    }


@pytest.mark.parametrize("kind", ["hash", "onnx"])
def test_codes_and_graphs_go_the_same_way(kind, folder, dataset, net, tmp_path, capsys):
    if kind == "hash":
        torch.manual_seed(0)
        made = Descriptor(create_embedder("efficientnet_lite0-spoc-hash:24"), size=64)
    else:
        export_onnx(net, tmp_path / "a net.onnx")
        made = Descriptor(f"onnx:'{tmp_path / 'a net.onnx'}'-size:64")
    place = made.save(tmp_path / "d")
    loaded = Descriptor.load(place)
    assert loaded.fingerprint() == made.fingerprint()
    make = Descriptor.encode if kind == "hash" else Descriptor.extract
    vectors = make(made, dataset.images, progress=False)
    assert np.array_equal(make(loaded, dataset.images, progress=False), vectors)
    assert vectors.dtype == (np.uint8 if kind == "hash" else np.float32)
    assert main(["eval", str(folder), "--descriptor", str(place)]) == 0
    printed = capsys.readouterr().out
    assert ("ties expected" in printed) == (kind == "hash")
    assert (
        main(["index", str(folder), "--out", str(tmp_path / "i"), "--descriptor", str(place)]) == 0
    )
    engine = SearchEngine.open(tmp_path / "i")
    rows = [engine.items["path"].tolist().index(str(p.resolve())) for p in dataset.images]
    assert np.array_equal(engine.index.reconstruct_n()[rows], vectors)
    found = engine.search(dataset.images[3], k=1)
    assert round(found["score"][0], 4) == 1


def test_an_index_learns_its_whitening_from_its_own_images(folder, tmp_path, capsys):
    args = ["index", str(folder), "--out", str(tmp_path / "i"), "--descriptor", f"{NAME}-pca:dim=8"]
    (folder / "database" / "broken.png").write_text("no picture")
    assert main(args) == 0
    (folder / "database" / "broken.png").unlink()
    engine = SearchEngine.open(tmp_path / "i")
    assert engine.retriever.descriptor.whitening.fitted_on_ == "its own images"
    assert engine.index.d == 8
    about = tomllib.loads((tmp_path / "i" / "descriptor" / "descriptor.toml").read_text())
    assert about["whitening"]["fitted_on"] == "its own images"


def test_vectors_for_other_programs(folder, dataset, tmp_path, capsys):
    out = tmp_path / "v.npy"
    assert main(["extract", str(folder), "--out", str(out), "--descriptor", NAME]) == 0
    table = (tmp_path / "v.csv").read_text().splitlines()[1:]
    assert len(table) == len(np.load(out)) == len(dataset.images) + len(dataset.queries)
    assert main(["extract", str(folder), "--out", "v.txt"]) == 2
    assert "is not a .npy file" in capsys.readouterr().err


def test_a_descriptor_is_trained_on_and_keeps_its_settings(folder, tmp_path, net, capsys):
    start = create_embedder("efficientnet_lite0-gem")
    with torch.no_grad():
        start.pool.p += 1
    place = Descriptor(start, size=64, flip=True).save(tmp_path / "start")
    args = ["train", "gem_contrastive", f"data.dataset={folder}", "net.freeze=4"]
    args += ["mining.queries=4", "mining.negatives=2", "mining.pool=8", "optimizer.lr=1e-9"]
    args += ["train.epochs=1", "validate.queries=0", "data.validation=0"]
    out = ["--out", str(tmp_path / "run"), "--descriptor", str(place)]
    assert main([*args, *out]) == 0, capsys.readouterr().err
    learned = Descriptor.load(tmp_path / "run" / "descriptor")
    assert str(learned) == f"{NAME}-flip"
    assert abs(float(learned.net.pool.p.detach()) - float(start.pool.p.detach())) < 1e-3
    assert main([*args, *out, "--whiten", "pca"]) == 2
    assert "disagree" in (error := capsys.readouterr().err) or "whitening" in error
    assert main([*args, "--out", str(tmp_path / "b"), "--embedder", "onnx:'a.onnx'"]) == 2
    assert "is a file" in capsys.readouterr().err


def test_the_cells_of_a_grid_share_a_descriptor(folder, tmp_path, capsys):
    config = tmp_path / "grid.toml"
    config.write_text(f'dataset = "{folder}"\n[axes]\npooling = ["gem", "mac"]\n')
    args = ["ablate", str(config), "--out", str(tmp_path / "a.csv")]
    args += ["--figure", str(tmp_path / "a.png"), "--descriptor", f"{NAME}-flip"]
    assert main(args) == 0, capsys.readouterr().err
    table = pd.read_csv(tmp_path / "a.csv")
    for pooling in ("gem", "mac"):
        worth = benchmark(folder, f"efficientnet_lite0-{pooling}-size:64-flip", progress=False)
        [row] = table[table["pooling"] == pooling].to_dict("records")
        assert row["mAP"] == pytest.approx(worth[row["protocol"]].summary["mAP"])
    config.write_text("image_size = 64\n" + config.read_text())
    assert main(args) == 2 and "beside a descriptor" in capsys.readouterr().err
    assert main(["ablate", str(config), "--descriptor", f"{NAME}-pca"]) == 2


def test_a_foreign_encoder_takes_its_card_along(folder, dataset, tmp_path):
    from onnx import TensorProto, helper

    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    vectors = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph([node], "mean", [images], [vectors], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    (tmp_path / "mean colour.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "mean colour.toml").write_text("mean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\n")
    name = f"onnx:'{tmp_path / 'mean colour.onnx'}'-size:32-resize:square"
    made = Descriptor(name)
    vectors = made.extract(dataset.images, progress=False)
    assert vectors.shape == (len(dataset.images), 3) and str(read_spec(str(made))) == str(made)
    place = made.save(tmp_path / "d")
    (tmp_path / "mean colour.toml").unlink()
    loaded = Descriptor.load(place)
    assert np.array_equal(loaded.extract(dataset.images, progress=False), vectors)
    (place / "net.toml").write_text("mean = [0.1, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\n")
    with pytest.raises(DescriptorError, match="have changed since"):
        Descriptor.load(place).extract(dataset.images[:1])


def test_what_cannot_be_kept_on_disk_is_not_indexed(folder, tmp_path, net):
    for retriever in (Retriever(None), Retriever(Descriptor(net), rerank=lambda r, q, x: r)):
        with pytest.raises(SpecError, match="cannot be kept on disk"):
            SearchEngine.build(folder, tmp_path / "i", retriever, progress=False)


def test_learning_from_images_without_labels_ends_before_any_is_described(folder, tmp_path, capsys):
    args = ["index", str(folder), "--out", str(tmp_path / "i"), "--descriptor", f"{NAME}-learned"]
    assert main(args) == 2
    assert "no labels in its own images" in capsys.readouterr().err
    assert not (tmp_path / "i").exists()


def test_a_bar_in_the_path_of_an_encoder_is_no_part_of_a_retriever(folder, tmp_path, net):
    export_onnx(net, tmp_path / "a | b.onnx")
    name = f"onnx:'{tmp_path / 'a | b.onnx'}'-size:64"
    SearchEngine.build(folder, tmp_path / "i", f"{name} | flat", progress=False)
    engine = SearchEngine.open(tmp_path / "i")
    assert engine.manifest["retriever"] == name and len(engine) == 20
    assert len(engine.search(next((folder / "query").rglob("*.png")), k=3)) == 3


def test_what_is_not_there_and_what_is_not_used_are_said(folder, tmp_path, net, capsys):
    assert main(["eval", str(folder), "--descriptor", "runs/descriptor"]) == 2
    assert "runs/descriptor is neither a directory here" in capsys.readouterr().err
    args = ["index", str(folder), "--out", str(tmp_path / "i"), "--fit-on", "photos"]
    assert main(args) == 2
    assert "--fit-on needs --whiten" in capsys.readouterr().err
    own = create_embedder("efficientnet_lite0-gem")
    with torch.no_grad():
        own.pool.p += 1
    place = Descriptor(own, size=64).save(tmp_path / "d")
    assert main(["eval", str(folder), "--descriptor", str(place)]) == 0
    assert capsys.readouterr().out.startswith(f"judged, {NAME}, weights {place / 'net.pth'}\n")
    assert open_descriptor("torchvision/resnet18").spec.net == "torchvision/resnet18-gem"
