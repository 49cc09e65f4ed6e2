"""Where the time of the tests goes: `tools/costs.py [--keep FILE] [tools/test.py's arguments]`.

Runs the tests and prints a table: for each test file and each notebook the seconds that passed and
the CPU seconds of all its processes, and how many of these went into imports, extraction,
rendering, training and the browser. Nested work counts once, as its innermost kind."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
KINDS = ["imports", "extraction", "rendering", "training", "browser"]
BROWSER = re.compile("chrom|node|playwright", re.I)

# --- inside pytest, as a plugin


def cpu_seconds() -> tuple[float, float]:
    "Of this process, of all that came from it, and of those the browser's."
    import psutil

    own = os.times()
    total, browser = sum(own[:4]), 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            seconds = sum(child.cpu_times()[:4])
            total += seconds
            browser += seconds if BROWSER.search(child.name()) else 0
        except psutil.Error:
            pass  # has just ended: its parent has its time
    return total, browser


def measure() -> dict:
    "Counters of this process as they stand now."
    meter = sys.modules["sitecustomize"].METER
    meter.count()
    total, browser = cpu_seconds()
    return {"wall": time.perf_counter(), "cpu": total, "browser": browser, **meter.seconds}


def keep(test: str, before: dict) -> None:
    "Write what has been spent since."
    after = measure()
    row = {key: after[key] - before.get(key, 0) for key in after}
    row["browser"] = max(0.0, row["browser"])  # less than before where it was closed
    with open(Path(os.environ["IMRET_COSTS"]) / f"tests-{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps({"test": test} | row) + "\n")


def pytest_collection_finish(session):
    "What it costs to import all tests."
    keep("collection", {"wall": time.perf_counter()})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    "What a test and its fixtures cost."
    before = measure()
    done = yield
    keep(item.nodeid, before)
    return done


# --- the table


def source_of(test: str) -> str:
    "The notebook where one is run, else the file of a test."
    notebook = re.search(r"test_notebook\[(.*)\]", test)
    return notebook[1] if notebook else test.split("::")[0].split("@")[0].removeprefix("tests/")


def table(folder: Path) -> pd.DataFrame:
    "A row a file, most expensive first."
    tests = [json.loads(s) for f in folder.glob("*.jsonl") for s in f.read_text().splitlines()]
    rows = pd.DataFrame(tests).assign(source=lambda t: t["test"].map(source_of), tests=1)
    rows = rows.groupby("source").sum(numeric_only=True)
    pids = {f.stem.removeprefix("tests-") for f in folder.glob("*.jsonl")}
    notebooks = {}
    for file in folder.glob("*.json"):
        record = json.loads(file.read_text())
        if str(record["pid"]) in pids or not record["tag"]:
            continue
        source = source_of(record["tag"])
        for kind, seconds in record["seconds"].items():
            if kind in KINDS and source in rows.index:
                rows.loc[source, kind] = rows[kind].fillna(0).get(source, 0) + seconds
        if source.endswith(".ipynb"):
            notebooks[source] = notebooks.get(source, 0) + sum(record["seconds"].values())
    for source, seconds in notebooks.items():
        rows.loc[source, "cpu"] = seconds  # several run at a time below one pytest
    rows = rows.reindex(columns=["tests", "wall", "cpu", *KINDS]).fillna(0)
    return rows.sort_values("cpu", ascending=False)


def busy() -> float:
    "Seconds that all cores of the machine have worked so far, for whatever program."
    import psutil

    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keep", type=Path, help="write the whole table as CSV")
    parser.add_argument("--top", type=int, default=40, help="rows printed")
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        path = [str(ROOT / "tools" / "hooks"), str(ROOT / "tools")]
        env = os.environ | {"IMRET_COSTS": folder, "PYTHONPATH": os.pathsep.join(path)}
        env["PYTEST_ADDOPTS"] = "-p costs"
        start, before = time.perf_counter(), busy()
        code = subprocess.run([sys.executable, "tools/test.py", *arguments], cwd=ROOT, env=env)
        wall, total = time.perf_counter() - start, busy() - before
        rows = table(Path(folder))
    if options.keep:
        rows.round(2).to_csv(options.keep)
    print(rows.head(options.top).round(1).to_string())
    tests = int(rows["tests"].sum())
    print(f"\n{len(rows)} files, {tests} tests: {wall:.0f} s, all cores {total:.0f} s")
    print(rows.sum().round(0).to_string())
    sys.exit(code.returncode)


if __name__ == "__main__":
    main()
