"""`evaluate` against the loop that its definition is, and counting against sorting.

python benchmarks/evaluation.py           the gates, about two minutes
python benchmarks/evaluation.py --check   the same; exit code 1 where a gate is missed

Each measurement runs in its own process, so that its peak memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
from statistics import median

import numpy as np
from common import interleaved, machine, ratio, table

from imret.core import GroundTruth, Ranking
from imret.evaluation import TiedPlaces, evaluate

QUERIES, DATABASE, POSITIVES, JUNK = 70, 1_000_000, 200, 50
COUNTED = (5, 50, 200, 1000)  # positives of a query
SIDE, DIMENSION, CLASS = 60_000, 512, 5  # Stanford Online Products, about
SLICE, BLOCK = 1024, 256  # queries measured, queries in a block


def memory() -> float:
    "The most memory this process has had, in GB."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


LIBRARIES = memory()  # torch alone takes half a gigabyte, and is not what is measured


def random_truth(rng: np.random.Generator, queries: int) -> GroundTruth:
    "Positives and junk drawn from the database."
    drawn = [rng.choice(DATABASE, POSITIVES + JUNK, replace=False) for _ in range(queries)]
    return GroundTruth(positive=[d[:POSITIVES] for d in drawn], junk=[d[POSITIVES:] for d in drawn])


def loop(ids: np.ndarray, positives: np.ndarray, junk: np.ndarray) -> float:
    "The definition of the revisited benchmarks, place by place."
    right, ignored = set(positives.tolist()), set(junk.tolist())
    rank, found, area = 0, 0, 0.0
    for i in ids.tolist():
        if i in ignored:
            continue
        if i in right:
            before = 1.0 if rank == 0 else found / rank
            found += 1
            area += (before + found / (rank + 1)) / 2
        rank += 1
    return area / len(right)


def arrays(ids: np.ndarray, positives: np.ndarray, junk: np.ndarray) -> float:
    "The same with `np.isin` over the list, as toolboxes do it."
    places = np.flatnonzero(np.isin(ids, positives))
    places -= np.searchsorted(np.flatnonzero(np.isin(ids, junk)), places)
    found = np.arange(len(places))
    before = np.where(places == 0, 1.0, found / np.maximum(places, 1))
    return float(((before + (found + 1) / (places + 1)) / 2).sum() / len(positives))


def lists(repeats: int) -> list[dict]:
    "mAP of 70 lists of a million; the slow ones judge a few of them, and are scaled up."
    rng = np.random.default_rng(0)
    truth = random_truth(rng, QUERIES)
    ids = np.empty((QUERIES, DATABASE), np.int64)
    for row in ids:
        row[:] = rng.permutation(DATABASE)
    scores = np.empty((QUERIES, DATABASE), np.float32)
    scores[:] = np.arange(DATABASE, 0, -1)
    ranking = Ranking(ids, scores)
    few = 2
    expected = np.array([loop(ids[q], truth.easy[q], truth.junk[q]) for q in range(few)])
    result = []
    seconds = interleaved(
        {
            "loop": lambda: [loop(ids[q], truth.easy[q], truth.junk[q]) for q in range(few)],
            "isin": lambda: [arrays(ids[q], truth.easy[q], truth.junk[q]) for q in range(few)],
            "imret": lambda: result.append(evaluate(ranking, truth)),
        },
        repeats,
    )
    assert np.allclose(result[-1].per_query["ap"][:few], expected, rtol=0, atol=1e-9)
    what = f"mAP of {QUERIES} lists of {DATABASE:,}"
    return [
        {
            "what": f"{what}, {name}",
            "peer s": median(seconds[key]) * QUERIES / few,
            "imret s": median(seconds["imret"]),
            "peer / imret": ratio(seconds[key], seconds["imret"]) * QUERIES / few,
            "wanted": wanted,
            "peak GB": peak(),
            "allowed GB": 1.5,
        }
        for key, name, wanted in (("loop", "plain loop", 10.0), ("isin", "np.isin", "–"))
    ]


def counts(repeats: int) -> list[dict]:
    "Ranks of the positives of one query from a million scores."
    rng = np.random.default_rng(0)
    rows = []
    scores = rng.standard_normal(DATABASE, dtype=np.float32)
    for n in COUNTED:
        positives = np.sort(rng.choice(DATABASE, n, replace=False))

        def lookup(kind, positives=positives):
            order = np.argsort(-scores, kind=kind)
            return np.flatnonzero(np.isin(order, positives))

        calls = {
            "argsort": lambda: lookup(None),
            "stable": lambda: lookup("stable"),
            "imret": lambda positives=positives: TiedPlaces.from_scores(scores, positives).found,
        }
        assert (calls["imret"]() == calls["stable"]()).all()
        seconds = interleaved(calls, repeats)
        for key, name, wanted in (("argsort", "argsort", 2.5), ("stable", "stable argsort", "–")):
            rows.append(
                {
                    "what": f"{n} places among {DATABASE:,} scores, {name} and look-up",
                    "peer s": median(seconds[key]),
                    "imret s": median(seconds["imret"]),
                    "peer / imret": ratio(seconds[key], seconds["imret"]),
                    "wanted": wanted,
                    "peak GB": peak(),
                    "allowed GB": "–",
                }
            )
    return rows


def stream(repeats: int) -> list[dict]:
    "All against all, block by block: a slice of the queries; memory does not grow with them."
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SIDE, DIMENSION), dtype=np.float32)
    labels = np.arange(SIDE) // CLASS
    truth = GroundTruth.from_labels(labels[:SLICE], labels, np.arange(SLICE))
    starts = range(0, SLICE, BLOCK)
    seconds = interleaved(
        {
            "multiply": lambda: [(x[i : i + BLOCK] @ x.T).shape for i in starts],
            "imret": lambda: evaluate((x[i : i + BLOCK] @ x.T for i in starts), truth),
        },
        repeats,
    )
    return [
        {
            "what": f"{SLICE} of {SIDE:,} x {DIMENSION} against all, multiplying alone",
            "peer s": median(seconds["multiply"]),
            "imret s": median(seconds["imret"]),
            "peer / imret": ratio(seconds["multiply"], seconds["imret"]),
            "wanted": "–",
            "peak GB": peak(),
            "allowed GB": 2.0,
        }
    ]


def peak() -> float:
    "The most memory this process has had since its imports, input included, in GB."
    return memory() - LIBRARIES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit code 1 where a gate is missed")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--only", choices=list(PARTS), help="one part, its rows as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(PARTS[args.only](args.repeats)))
        return 0
    print(machine() + "\n", flush=True)
    rows = []
    for part in PARTS:
        command = [sys.executable, __file__, "--only", part, "--repeats", str(args.repeats)]
        rows += json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(table(rows))
    missed = [
        r["what"]
        for r in rows
        if (r["wanted"] != "–" and r["peer / imret"] < r["wanted"])
        or (r["allowed GB"] != "–" and r["peak GB"] > r["allowed GB"])
    ]
    print("\nGate missed: " + "; ".join(missed) if missed else "\nAll gates hold.")
    return 1 if args.check and missed else 0


PARTS = {"lists": lists, "counts": counts, "stream": stream}

if __name__ == "__main__":
    sys.exit(main())
