"""`FlatIndex` against faiss's `IndexFlatIP`: time ratios and the share of what the machine allows.

python benchmarks/search.py             the gates: 200,000 x 512 at 1, 16, 100 and 1000 queries
python benchmarks/search.py --check     the same; exit code 1 where a gate is missed
python benchmarks/search.py --figure    every batch size, and figures/flat_search.png
python benchmarks/search.py --sweep     other shapes, k = 10 and 100, and an unlucky order

Threads that share too few cores wait for each other: on a busy machine faiss's two threads may take
ten times as long as one. So both are measured with one thread first, then with two.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import faiss
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import gemm, interleaved, machine, ratio, table
from threadpoolctl import threadpool_limits

from imret.core import l2_normalize
from imret.search import FlatIndex

GATES = {1: 1.05, 16: 1.05, 100: 0.3, 1000: 1.05}  # queries: most that imret / faiss may be
BATCHES = [1, 2, 4, 8, 16, 32, 64, 100, 256, 512, 1000]
SHAPES = [(200_000, 512), (20_000, 128), (1_000_000, 64), (10_000, 2048)]
FIGURE = Path(__file__).parent.parent / "figures" / "flat_search.png"


def unit_vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    "Random vectors of length one."
    return l2_normalize(np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32))


def compare(
    x: np.ndarray,  # Database
    batches: list[int],  # Queries at a time
    k: int,  # Results
    repeats: int,  # Rounds
) -> Iterator[dict]:  # A row a batch size
    "Time both, and in the same rounds how fast this machine reads and multiplies."
    n, d = x.shape
    ours, peer = FlatIndex(d), faiss.IndexFlatIP(d)
    ours.add(x)
    peer.add(x)
    memory = torch.zeros(100_000_000)
    multiply, operations = gemm()
    for q in batches:
        queries = unit_vectors(q, d, seed=1)
        t = interleaved(
            {
                "faiss": lambda queries=queries: peer.search(queries, k),
                "imret": lambda queries=queries: ours.search(queries, k),
                "read": memory.sum,
                "multiply": multiply,
            },
            repeats,
        )
        limit = [
            max(r * x.nbytes / memory.nbytes, m * 2 * q * n * d / operations)
            for r, m in zip(t["read"], t["multiply"], strict=True)
        ]
        yield {
            "database": f"{n:,} x {d}",
            "k": k,
            "queries": q,
            "faiss ms": 1e3 * median(t["faiss"]),
            "imret ms": 1e3 * median(t["imret"]),
            "imret / faiss": ratio(t["imret"], t["faiss"]),
            "limit ms": 1e3 * median(limit),
            "limit / imret": ratio(limit, t["imret"]),
        }


def sweep(repeats: int) -> Iterator[dict]:
    "Other shapes; and a database that gets better and better, the worst for a rising floor."
    for n, d in SHAPES:
        x = unit_vectors(n, d)
        for k in (10, 100):
            yield from compare(x, BATCHES, k, repeats)
    x = unit_vectors(200_000, 64)
    towards = unit_vectors(1000, 64, seed=1).mean(axis=0)
    for row in compare(x[np.argsort(x @ towards)], BATCHES, 100, repeats):
        yield row | {"database": row["database"] + ", worst first"}


def wide(rows: list[dict]) -> list[dict]:
    "A row a database and k, a column a batch size, in it imret / faiss."
    out = {}
    for r in rows:
        same = {name: r[name] for name in ("threads", "database", "k")}
        out.setdefault(tuple(same.values()), same)[f"{r['queries']}"] = round(r["imret / faiss"], 2)
    return list(out.values())


def draw(rows: list[dict], path: Path) -> None:
    "Time a query against queries at a time."
    plt.style.use("imret.data.imret")
    fig, ax = plt.subplots(figsize=(5.5, 3.2))
    q = np.array([r["queries"] for r in rows])
    for name, style in {"faiss": "o-", "imret": "o-", "limit": "k:"}.items():
        label = "limit of this machine" if name == "limit" else name
        ax.loglog(q, [r[f"{name} ms"] for r in rows] / q, style, label=label, markersize=4)
    ax.set(
        xlabel="queries at a time",
        ylabel="ms a query",
        title=f"{rows[0]['database']}, threads: {rows[0]['threads']}",
    )
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    ax.legend()
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit code 1 where a gate is missed")
    parser.add_argument("--figure", action="store_true", help=f"write {FIGURE.name}")
    parser.add_argument("--sweep", action="store_true", help="other shapes; some ten minutes")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of both, one after the other"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    args = parser.parse_args()

    print(f"{machine()}; faiss {faiss.__version__}\n", flush=True)
    done = []
    for threads in args.threads:
        faiss.omp_set_num_threads(threads)
        torch.set_num_threads(threads)
        with threadpool_limits(threads, user_api="blas"):
            if args.sweep:
                rows = sweep(args.repeats)
            else:
                batches = BATCHES if args.figure else list(GATES)
                rows = compare(unit_vectors(*SHAPES[0]), batches, 100, args.repeats)
            for row in rows:
                done.append({"threads": threads} | row)
                print(*done[-1].values(), file=sys.stderr, flush=True)
    print(table(wide(done) if args.sweep else done))
    if args.figure:
        draw([r for r in done if r["threads"] == args.threads[-1]], FIGURE)
    if args.sweep:
        worst = max(done, key=lambda r: r["imret / faiss"])
        print(f"\nLargest ratio: {worst['imret / faiss']:.2f}")
        return 0
    missed = [
        f"{r['queries']} queries, {r['threads']} threads: {r['imret / faiss']:.2f}"
        for r in done
        if r["imret / faiss"] > GATES.get(r["queries"], np.inf)
    ]
    print("\nGate missed: " + "; ".join(missed) if missed else "\nAll gates hold.")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
