"""What version 0.1.0 wrote is still read: here is each file in the form that it had."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from imret.engine import SearchEngine
from imret.features import extract
from imret.nets import Preprocess, create_embedder, load_net

SIZE = 64
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photos(tmp_path):
    "Three pictures that a net can tell apart."
    rng, files = np.random.default_rng(0), []
    (tmp_path / "photos").mkdir()
    for n in range(3):
        pixels = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        files.append(tmp_path / "photos" / f"{n}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def write_index(folder, photos):
    "What `imret index photos --out folder --image-size 64` wrote."
    net = create_embedder("efficientnet_lite0-gem")
    vectors = extract(net, photos, image_size=SIZE, progress=False)
    stats = [p.stat() for p in photos]
    items = pd.DataFrame(
        {
            "id": np.arange(len(photos)),
            "path": pd.Series([str(p.resolve()) for p in photos], dtype="str"),
            "bytes": [s.st_size for s in stats],
            "mtime_ns": [s.st_mtime_ns for s in stats],
        }
    )
    manifest = {
        "format": 1,
        "imret": "0.1.0",
        "embedder": "efficientnet_lite0-gem",
        "weights": None,
        "fingerprint": "6b582bfe4264c310",
        "dim": 1280,
        "image_size": SIZE,
        "generation": 1,
        "next_id": len(photos),
        "skipped": {},
        "vectors": "vectors-1.npy",
        "items": "items-1.parquet",
    }
    folder.mkdir()
    np.save(folder / "vectors-1.npy", vectors)
    items.to_parquet(folder / "items-1.parquet", index=False)
    (folder / "engine.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False))


def test_index(tmp_path, photos):
    "It is searched, and it grows."
    write_index(tmp_path / "index", photos[:2])
    engine = SearchEngine.open(tmp_path / "index")
    found = engine.search(photos[1], k=2)
    assert found["path"][0] == str(photos[1].resolve()) and found["score"][0] > 0.9999
    assert engine.add(photos, progress=False) == 1
    again = SearchEngine.open(tmp_path / "index")
    assert len(again) == 3 and again.search(photos[2], k=1)["score"][0] > 0.9999


def test_checkpoint(tmp_path):
    "A net from `save_net`, with its parts and how it wants its images."
    torch.manual_seed(0)
    name = "mobilenetv3_small_050-gem:p=4-whiten:16"
    net = create_embedder(name, pretrained=False, preprocess=Preprocess.caffe(320))
    content = {
        "imret": 1,
        "name": name,
        "preprocess": {
            "mean": (123.68 / 255, 116.779 / 255, 103.939 / 255),
            "std": (1 / 255, 1 / 255, 1 / 255),
            "interpolation": "bilinear",
            "image_size": 320,
            "bgr": True,
        },
        "fingerprint": net.fingerprint(),
        "state_dict": net.state_dict(),
    }
    torch.save(content, tmp_path / "net.pth")
    again = load_net(tmp_path / "net.pth")
    assert again.name == name and again.preprocess == net.preprocess
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net(x), again(x))
