"""What `write_image_matrix` and a pass over the matrix hold in memory, against the file's size.

python benchmarks/image_matrix.py                    10,000 pictures of 224 x 224: a file of 1.5 GB
python benchmarks/image_matrix.py --number 100000    as in the table: 15 GB
python benchmarks/image_matrix.py --check            exit code 1 where the gate is missed

Memory is that of this process and all its children. *Anonymous* memory is what they hold; *mapped*
is the share of the file that the system keeps in its cache and shows as theirs after they touched
it, and drops when somebody else wants the memory. Pages that several processes share are counted
once (PSS). The file is removed at the end. Linux only: it reads /proc."""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from common import machine, table
from PIL import Image

from imret.datasets import open_image_matrix, write_image_matrix

GATE = 0.1  # of the file's size: most that may be held
MB = 1e6


def family(pid: str) -> list[str]:
    "A process and those that it started, and so on."
    found = [pid]
    for task in Path("/proc", pid, "task").glob("*/children"):
        try:
            found += [p for child in task.read_text().split() for p in family(child)]
        except OSError:
            pass  # it has just ended
    return found


def held() -> tuple[float, float]:
    "MB of anonymous and of file-backed memory of this process and its children."
    anonymous = mapped = 0
    for pid in family("self"):
        try:
            lines = Path("/proc", pid, "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kilobytes = {o.split(":")[0]: int(o.split()[1]) for o in lines[1:] if o.endswith("kB")}
        anonymous += kilobytes["Pss_Anon"]
        mapped += kilobytes["Pss_File"]
    return anonymous * 1024 / MB, mapped * 1024 / MB


class Peak(threading.Thread):
    "Looks at the memory several times a second, in the background."

    def __init__(self, pause: float = 0.25):
        super().__init__(daemon=True)
        self.pause, self.done = pause, threading.Event()
        self.start_held = held()[0]
        self.anonymous = self.mapped = 0.0
        self.began = time.perf_counter()

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = time.perf_counter() - self.began
        self.done.set()
        self.join()

    def run(self) -> None:
        while not self.done.wait(self.pause):
            anonymous, mapped = held()
            self.anonymous = max(self.anonymous, anonymous)
            self.mapped = max(self.mapped, mapped)


def make_pictures(folder: Path, number: int = 200) -> list[Path]:
    "Small JPEG files of several shapes, of smooth noise."
    rng = np.random.default_rng(0)
    files = []
    for i in range(number):
        w, h = rng.integers(160, 400, 2).tolist()
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        files.append(folder / f"{i}.jpg")
        coarse.resize((w, h), Image.Resampling.BICUBIC).save(files[-1])
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--number", type=int, default=10_000, help="pictures (default 10,000: 1.5 GB)"
    )
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one a core)")
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the gate is missed")
    args = parser.parse_args()

    print(f"{machine()}\n", flush=True)
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        pictures = make_pictures(folder)
        images = [pictures[i % len(pictures)] for i in range(args.number)]
        file = folder / "matrix.npy"
        with Peak() as writing:
            write_image_matrix(images, file, n_jobs=args.jobs)
        size = file.stat().st_size / MB
        with Peak() as reading:
            matrix = open_image_matrix(file)
            total = sum(
                int(matrix.pixels[i : i + 256].sum(dtype=np.int64))
                for i in range(0, len(matrix), 256)
            )
        one_each = int(matrix.pixels[: len(pictures)].sum(dtype=np.int64))
        whole, rest = divmod(args.number, len(pictures))
        wanted = whole * one_each + int(matrix.pixels[:rest].sum(dtype=np.int64))
        assert total == wanted and not matrix.broken, "the file is not what was written"
    finally:
        shutil.rmtree(folder)
    rows = [
        {
            "what": f"{what} {args.number:,} x 3 x 224 x 224",
            "file MB": round(size),
            "seconds": round(peak.seconds),
            "held before, MB": round(peak.start_held),
            "most held, MB": round(peak.anonymous),
            "held / file": peak.anonymous / size,
            "wanted": GATE,
            "most mapped, MB": round(peak.mapped),
        }
        for what, peak in (("write", writing), ("read", reading))
    ]
    print(table(rows))
    missed = [r["what"] for r in rows if r["held / file"] > GATE]
    print("\nGate missed: " + "; ".join(missed) if missed else "\nThe gate holds.")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
