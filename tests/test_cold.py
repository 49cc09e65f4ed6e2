"""An answer without PyTorch, and a mistake in a name that is told before PyTorch is loaded."""

import io
import json
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from imret.cli import main
from imret.core import StoreError
from imret.engine import SearchEngine, export_net, open_exported
from imret.features import Descriptor
from imret.nets import create_embedder, export_onnx

HEAVY = ("torch", "timm", "torchvision", "onnx", "scipy", "sklearn", "skimage", "matplotlib")
BLOCKED = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*HEAVY, "seaborn")!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
"""
ASK = """
from imret.engine import SearchEngine
engine = SearchEngine.open(sys.argv[1])
boxed = engine.search(sys.argv[2], 5, (8, 8, 60, 50))
for found in (engine.search(sys.argv[2], 5), boxed, engine.search(sys.argv[3], 1)):
    print(found.to_json())
"""


def python(code: str, *arguments) -> str:
    "What a new Python prints."
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Twelve coloured pictures that a net can tell apart."
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for n in range(12):
        pixels = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02}.png")
    return sorted(folder.iterdir())


SETTINGS = [
    "efficientnet_lite0-gem-size:96",
    "efficientnet_lite0-gem-size:96-scales:three-power:net-flip",
    "efficientnet_lite0-gem-size:96-crop:after-pca:dim=8",
    "efficientnet_lite0-gem-hash:64-size:96",
    "onnx",
]


@pytest.mark.parametrize("name", SETTINGS)
def test_an_answer_without_torch(name, photos, tmp_path):
    "The same paths, and scores that differ by 1e-4 at most."
    if name == "onnx":
        export_onnx(create_embedder("efficientnet_lite0-gem"), tmp_path / "own.onnx")
        name = f"onnx:'{tmp_path / 'own.onnx'}'-size:96"
    if "hash" in name:  # a head without weights is drawn
        torch.manual_seed(0)
        name = Descriptor(create_embedder(name.removesuffix("-size:96")), size=96)
    engine = SearchEngine.build(photos, tmp_path / "index", name, progress=False)
    runs = engine.manifest["engine"]
    assert runs["search"] == "onnxruntime" and (engine.folder / "descriptor/net.onnx").is_file()
    image = photos[3]
    lines = python(BLOCKED + ASK, engine.folder, image, photos[5]).splitlines()
    found, boxed, itself = (pd.read_json(io.StringIO(line)) for line in lines)
    for cold, warm in (
        (found, engine.search(image, 5)),
        (boxed, engine.search(image, 5, (8, 8, 60, 50))),
    ):
        assert cold["path"].tolist() == warm["path"].tolist()
        assert np.allclose(cold["score"], warm["score"], atol=1e-4)
    assert itself["path"][0] == str(photos[5]) and f"{itself['score'][0]:.4f}" == "1.0000"


def test_the_command_without_torch(photos, tmp_path):
    SearchEngine.build(photos, tmp_path / "index", SETTINGS[0], progress=False)
    code = BLOCKED + "from imret.cli import main; sys.exit(main(sys.argv[1:]))"
    printed = python(code, "search", tmp_path / "index", photos[2], "-k", "3")
    assert len(printed.splitlines()) == 3 and "1.0000" in printed.splitlines()[0]


@pytest.fixture(scope="module")
def engine(photos, tmp_path_factory):
    return SearchEngine.build(
        photos, tmp_path_factory.mktemp("e") / "i", SETTINGS[0], progress=False
    )


def test_without_the_package_onnx_it_stays_on_torch(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    arguments = ["index", photos[0].parent, "--out", tmp_path / "index", "--image-size", 96]
    assert main(list(map(str, arguments))) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and said[1].startswith(
        "a search waits for PyTorch: onnx is not installed"
    )
    engine = SearchEngine.open(tmp_path / "index")
    assert engine.manifest["engine"]["search"] == "torch"
    assert not (engine.folder / "descriptor" / "net.onnx").exists()
    assert engine.search(photos[2], 1)["path"][0] == str(photos[2])


def test_other_vectors_are_not_kept(engine, photos, tmp_path):
    wrong = engine.index.reconstruct_n(0, 3)[::-1]
    said = export_net(engine.retriever, engine.folder / "descriptor", tmp_path, photos[:3], wrong)
    assert said["search"] == "torch" and "gives other vectors" in said["reason"]


def test_a_directory_that_does_not_say_is_searched_by_torch(engine, photos, tmp_path):
    shutil.copytree(engine.folder, tmp_path / "index")
    file = tmp_path / "index" / "engine.json"
    manifest = json.loads(file.read_text())
    del manifest["engine"]
    file.write_text(json.dumps(manifest))
    again = SearchEngine.open(tmp_path / "index")
    assert again.search(photos[2], 1)["path"][0] == str(photos[2])


def test_a_damaged_file_is_told(engine, tmp_path):
    shutil.copytree(engine.folder / "descriptor", tmp_path / "descriptor")
    (tmp_path / "descriptor" / "net.onnx").write_bytes(b"another")
    with pytest.raises(StoreError, match=r"net.onnx is missing or damaged"):
        open_exported(tmp_path / "descriptor", engine.manifest["engine"]["sha256"])


WRONG = [
    "efficientnet_lite0-gme",
    "efficientnet_lite0-gem:q=3",
    "efficientnet_lite0-gem:p=three",
    "efficientnet_lite0-gem:p=-1",
    "efficientnet_lite0-gem-gem",
    "efficientnet_lite0-gem-hash",
    "efficientnet_lite0-gem-sise:3",
    "efficientnet_lite0-gem-size:small",
    "efficientnet_lite0-gem-scales:fourr",
    "efficientnet_lite0-gem-power:high",
    "efficientnet_lite0-gem-crop:sometimes",
    "efficientnet_lite0-gem-pca:dim=0",
    "efficientnet_lite0-gem-zca",
    "efficientnet_lite0-gem-weights:nowhere.pth",
    "onnx:nowhere.onnx",
]


def test_mistakes_in_a_name_wait_for_nothing():
    code = """
    import sys
    from imret.cli import main
    for name in sys.argv[1:]:
        assert main(["eval", "photos", "--descriptor", name]) == 2
        loaded = {"torch", "timm", "torchvision"} & set(sys.modules)
        assert not loaded, (name, loaded)
    """
    python(code, *WRONG)


def test_an_unknown_backbone_opens_no_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IMRET_DATA", str(tmp_path))
    for command in (["eval", "tinytown"], ["index", "nowhere", "--out", str(tmp_path / "out")]):
        assert main([*command, "--descriptor", "no_such-gem"]) == 2
        assert "unknown backbone 'no_such'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
