"""The first answer of `imret search`, against a bare script that does only what has to be done.

`python benchmarks/cold_start.py` indexes 1,000 photographs and drawings, then asks for one in new
processes, in turns with a script that imports NumPy, pandas, OpenCV and onnxruntime, decodes the
picture, runs the same `net.onnx` and prints the same ten results. Once with bytecode from an
earlier run, and once where Python keeps none, as in many containers."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import interleaved, machine, ratio, table

from imret.datasets import load_dataset
from imret.engine import SearchEngine

BARE = """
import sys
import cv2
import numpy as np
import onnxruntime
import pandas as pd
image = cv2.imread(sys.argv[1])[:, :, ::-1]
f = 320 / max(image.shape)
shape = round(image.shape[1] * f), round(image.shape[0] * f)
image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
x = ((image[None].transpose(0, 3, 1, 2).astype("f") / 255 - 0.5) / 0.5)
session = onnxruntime.InferenceSession(sys.argv[2])
vector = session.run(None, {"images": np.ascontiguousarray(x)})[0]
items = pd.read_parquet(sys.argv[3])
scores = np.load(sys.argv[4]) @ vector[0]
for i in np.argsort(-scores)[:10]:
    print(f"{scores[i]:.4f}", items["path"][i])
"""
WANTED, SECONDS = 1.5, 3  # at most so many times the bare script; at most so many seconds


def python(*arguments, **environment) -> None:
    "A new Python, whose output is not looked at."
    known = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *map(str, arguments)]
    subprocess.run(command, env=known | environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        photos = load_dataset("photos")
        images = [*photos.images, *load_dataset("tinytown").images][:1000]
        engine = SearchEngine.build(images, f"{tmp}/index")
        print(f"{len(engine)} images, searched by {engine.manifest['engine']['search']}")
        files = [engine.folder / engine.manifest[name] for name in ("items", "vectors")]
        bare = "-c", BARE, photos.queries[0], engine.folder / "descriptor" / "net.onnx", *files
        code = "import sys; from imret.cli import main; sys.exit(main(sys.argv[1:]))"
        mine = "-c", code, "search", engine.folder, photos.queries[0]
        for kept in ("kept", "none"):
            around = {"PYTHONPYCACHEPREFIX": str(Path(tmp, kept))}  # empty at first
            around |= {"PYTHONDONTWRITEBYTECODE": "1"} if kept == "none" else {}
            calls = {"bare": lambda a=around: python(*bare, **a)}
            calls["imret"] = lambda a=around: python(*mine, **a)
            seconds = interleaved(calls, repeats)
            row = {"bytecode": kept}
            row |= {f"{name}, s": statistics.median(each) for name, each in seconds.items()}
            row["imret / bare"] = ratio(seconds["imret"], seconds["bare"])
            rows.append(row | {"wanted": WANTED, "wanted, s": SECONDS})
    print(machine())
    print(table(rows))


if __name__ == "__main__":
    main()
