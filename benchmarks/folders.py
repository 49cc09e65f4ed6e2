"""A folder of a million pictures: how long to list and to look through it, and in how much memory.

`python benchmarks/folders.py [--images 100000]` makes a tree of small JPEGs (4 kB of disk each), a
tenth of them copies and one in a hundred cut short, and removes it again. Memory is the peak of the
whole process, libraries included."""

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine, table
from PIL import Image

ALLOWED = 0.5  # GB
RUN = """
import sys, time
from imret.datasets import {what}
start = time.perf_counter()
found = {call}
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1e6
print(time.perf_counter() - start, peak, found)
"""
CALLS = {
    "list": ("iter_images", "sum(1 for _ in iter_images(sys.argv[1]))"),
    "describe, headers only": ("describe_images", "describe_images(sys.argv[1], True).images"),
    "describe": (
        "describe_images",
        "(lambda d: (d.images, d.n_broken, d.n_copies, d.n_groups))(describe_images(sys.argv[1]))",
    ),
}


def make_tree(folder: Path, n: int) -> None:
    "Folders of a thousand JPEGs; what follows the picture's end makes each file another one."
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(16):
        file = io.BytesIO()
        small = rng.integers(0, 255, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 48)).save(file, "JPEG", quality=80)
        jpegs.append(file.getvalue())
    for i in range(n):
        if i % 1000 == 0:
            here = folder / f"{i // 1000:04}"
            here.mkdir()
        like = i - 1 if i % 10 == 9 else i  # every tenth repeats the one before
        data = jpegs[like % 16] + like.to_bytes(4, "big")
        if i % 100 == 50:
            data = data[:300]
        (here / f"{i % 1000:03}.jpg").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    n = parser.parse_args().images
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        start = time.perf_counter()
        make_tree(Path(tmp), n)
        print(f"{n:,} files made in {time.perf_counter() - start:.0f} s", flush=True)
        for name, (what, call) in CALLS.items():
            command = [sys.executable, "-c", RUN.format(what=what, call=call), tmp]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds, peak, found = out.split(maxsplit=2)
            print(name, found.strip(), flush=True)
            row = {"what": name, "images": f"{n:,}", "s": float(seconds)}
            row["images/s"] = round(n / float(seconds))
            rows.append(row | {"peak GB": float(peak), "allowed GB": ALLOWED})
    print(machine())
    print(table(rows))


if __name__ == "__main__":
    main()
