"""What fitting `PCAWhitening` to a file of vectors holds in memory.

python benchmarks/whitening.py                    1,000,000 x 2048: a file of 8 GB
python benchmarks/whitening.py --number 100000    fewer
python benchmarks/whitening.py --check            exit code 1 where the gate is missed

*Held* is anonymous memory, libraries included; the pages of the file that the system keeps in its
cache are told apart from it as *mapped*. The file is removed at the end. Linux only."""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import machine, table
from image_matrix import Peak

from imret.features import PCAWhitening

GATE = 3.0  # GB that may be held


def write_vectors(file: Path, n: int, d: int, block: int = 16384) -> None:
    "Vectors with correlated dimensions; blocks repeat, each a little turned."
    rng = np.random.default_rng(0)
    x = rng.standard_normal((block, d), dtype=np.float32)
    x *= np.geomspace(1, 0.05, d, dtype=np.float32)
    out = np.lib.format.open_memmap(file, "w+", np.float32, (n, d))
    for i, start in enumerate(range(0, n, block)):
        part = out[start : start + block]
        part[:] = np.roll(x, i, axis=1)[: len(part)]
    out.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=1_000_000, help="vectors")
    parser.add_argument("--dim", type=int, default=2048, help="dimensions")
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the gate is missed")
    args = parser.parse_args()

    print(f"{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file = Path(folder, "vectors.npy")
        write_vectors(file, args.number, args.dim)
        vectors = np.load(file, mmap_mode="r")
        with Peak() as peak:
            fitted = PCAWhitening().fit(vectors)
        sample = fitted.transform(vectors[:: max(1, args.number // 8192)], normalize=False)
    row = {
        "what": f"PCA of {args.number:,} x {args.dim}",
        "file GB": args.number * args.dim * 4 / 1e9,
        "seconds": peak.seconds,
        "held before, GB": peak.start_held / 1e3,
        "most held, GB": peak.anonymous / 1e3,
        "wanted": GATE,
        "most mapped, GB": peak.mapped / 1e3,
        "variance of a sample": float(sample.var(axis=0).mean()),
    }
    print(table([row]))
    missed = peak.anonymous > GATE * 1e3
    print("\nGate missed." if missed else "\nThe gate holds.")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
