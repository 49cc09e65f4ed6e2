"""`imret eval`: every option of extraction and whitening, against the library by hand."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from imret.cli import main
from imret.datasets import load_dataset
from imret.features import PCAWhitening, describe, fit_named
from imret.nets import create_embedder

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = "astronaut", "chelsea", "coffee", "rocket"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "A benchmark, a set to learn from, and some distractors: parts of a few photographs."
    root = tmp_path_factory.mktemp("eval")
    for name in NAMES:
        photo = Image.fromarray(getattr(data, name)()).resize((120, 90))
        for i in range(4):
            judged = root / "judged" / ("database" if i else "query") / name
            other = root / "other" / ("database" if i else "query") / name
            for folder, part in ((judged, photo), (other, photo.rotate(90, expand=True))):
                folder.mkdir(parents=True, exist_ok=True)
                part.crop((i, 2 * i, 80 + i, 80)).save(folder / f"{i}.png")
    (root / "others").mkdir()
    for i in range(5):
        noise = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(root / "others" / f"{i}.png")
    return root


@pytest.fixture
def evaluate(folders, capsys):
    "The printed lines, and the descriptors."

    def run(*options):
        file = folders / "vectors.npy"
        args = ["eval", folders / "judged", "--image-size", 64, "--save-features", file]
        args += ["--cache", folders / "cache", *options]
        assert main([str(o) for o in args]) == 0
        return capsys.readouterr().out.splitlines(), np.load(file)

    return run


@pytest.fixture(scope="module")
def net():
    return create_embedder("efficientnet_lite0-gem")


def by_hand(net, dataset, **way):
    way = {"image_size": 64, "progress": False, **way}
    x = describe(net, dataset.images, **way)
    return np.concatenate([x, describe(net, dataset.queries, dataset.boxes, **way)])


@pytest.mark.parametrize(
    "options, way, said",
    [
        ("", {}, ""),
        ("--scales 1,0.7071", {"scales": (1, 0.7071)}, "-scales:1,0.7071"),
        ("--scales three", {"scales": "three"}, "-scales:three"),
        ("--scales one --flip", {"scales": "one", "flip": True}, "-flip"),
        (
            "--scales 1,2 --power net",
            {"scales": (1, 2), "power": None},
            "-scales:1,2-power:net",
        ),
        (
            "--scales half_more --power 2.5 --resize square --crop after",
            {"scales": "half_more", "power": 2.5, "resize": "square", "crop": "after"},
            "-scales:half_more-power:2.5-crop:after-resize:square",
        ),
    ],
)
def test_options_of_extraction(evaluate, folders, net, options, way, said):
    lines, vectors = evaluate(*options.split())
    assert lines[0] == f"judged, efficientnet_lite0-gem-size:64{said}"
    wanted = by_hand(net, load_dataset(folders / "judged"), **way)
    assert np.allclose(vectors, wanted, atol=1e-5)


@pytest.mark.parametrize("spec", ["pca:power=0.5,dim=4", "learned:dim=8,pca=16"])
def test_whitening_fitted_on_another_set(evaluate, folders, net, spec):
    lines, vectors = evaluate("--whiten", spec, "--fit-on", folders / "other")
    assert lines[0].startswith("judged, efficientnet_lite0-gem-size:64-" + spec.partition(":")[0])
    assert lines[0].endswith(", fitted on other")
    other = load_dataset(folders / "other")
    learned = describe(net, other.images, image_size=64, progress=False)
    whitening = fit_named(spec, learned, other)
    wanted = whitening.transform(by_hand(net, load_dataset(folders / "judged")))
    assert np.allclose(vectors, wanted, atol=1e-3)
    again, _ = evaluate("--features", folders / "vectors.npy")
    assert again[1:] == lines[1:]


def test_whitening_from_a_file_and_among_distractors(evaluate, folders, net):
    _, plain = evaluate()
    file = folders / "kept.npz"
    PCAWhitening(6).fit(plain[:9], fitted_on="elsewhere").save(file)
    lines, vectors = evaluate("--whiten", file)
    assert lines[0].endswith(f"-whitening:'{file}', fitted on elsewhere")
    assert np.allclose(vectors, PCAWhitening(6).fit(plain[:9]).transform(plain), atol=1e-4)
    assert evaluate("--features", folders / "vectors.npy")[0][1:] == lines[1:]
    for _ in range(2):  # the second time from the shards
        among, _ = evaluate("--whiten", file, "--distractors", folders / "others")
        assert "among 5 distractors" in among[0] and f"whitening:'{file}'" in among[0]
    [shard] = (folders / "cache").glob("shards-*/whitened-*/00000.npy")
    assert np.load(shard).shape == (5, 6)


def test_what_is_judged_may_be_learned_from_only_if_said(evaluate, folders, capsys):
    same = ("--whiten", "pca", "--fit-on", str(folders / "judged"))
    args = ["eval", str(folders / "judged"), "--image-size", "64", *same]
    assert main(args) == 2
    assert "--allow-test-fit" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="no estimate for other photographs"):
        lines, _ = evaluate(*same, "--allow-test-fit")
    assert "-pca, fitted on judged" in lines[0]


@pytest.mark.parametrize(
    "options, said",
    [
        ("--scales big", "half_more, one"),
        ("--scales 1,0", "above 0"),
        ("--scales rmac", "[-186, 64, 314]"),
        ("--power strong", "plain, net or a number"),
        ("--power -1", "plain, net or a number"),
        ("--power nan", "plain, net or a number"),
        ("--crop first", "after, before, none, same_scale"),
        ("--resize short", "long, square"),
        ("--whiten zca --fit-on emoji", "learned, pca"),
        ("--whiten pca:power=much --fit-on emoji", "power is a number from 0"),
        ("--whiten pca", "give --fit-on"),
        ("--whiten nowhere.npz", "nowhere.npz is no whitening"),
        ("--whiten nowhere.npz --fit-on emoji", "leave --fit-on out"),
        ("--whiten pca --fit-on no-such-set", "no-such-set"),
        ("--fit-on emoji", "--fit-on needs --whiten"),
        ("--whiten pca --fit-on emoji --features x.npy", "file of a fitted whitening"),
    ],
)
def test_mistakes_are_one_line_before_any_work(folders, capsys, monkeypatch, options, said):
    monkeypatch.setattr("imret.nets.create_embedder", None)
    args = ["eval", str(folders / "judged"), "--image-size", "64", *options.split()]
    assert main(args) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("imret: ") and printed.err.count("\n") == 1, printed.err
    assert said in printed.err and not printed.out
