"""Every check: `tools/test.py [pytest's arguments]`, or `tools/test.py --changed [COMMIT]`.

Without arguments each test file and each notebook is a job, and all jobs stand in one queue,
longest first, for as many workers as there are cores and memory. A job is a process of its own,
forked from one that has imported what takes long to import: nothing that one job leaves in memory
reaches another. The order comes from tests/costs.csv, which tools/costs.py writes. `--changed`
takes only what the changes since a commit can touch, see tools/changed.py."""

import csv
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import changed
import psutil

ROOT = Path(__file__).resolve().parents[1]
COSTS = ROOT / "tests" / "costs.csv"
MEMORY = 3 * 2**30  # bytes of a worker
SHARES = 4  # jobs that the pages of the site are dealt out to
NOTEBOOK = "tests/test_notebooks.py::test_notebook["
PRELOAD = ["pytest", "playwright.sync_api", "nbdev.test", "nbdev.serve", "IPython", "docs"]
PRELOAD += ["torch", "timm", "pandas", "matplotlib.pyplot", "seaborn", "scipy.stats", "skimage"]
PRELOAD += ["sklearn.cluster", "sklearn.decomposition", "cv2", "anywidget", "joblib", "typer"]
PRELOAD += [f"imret.{room}" for room in ("training", "explore", "ablation", "reproduce", "cli")]


def every_job() -> dict[str, list[str]]:
    "All tests: by name the arguments for pytest."
    jobs = {f.name: [f"tests/{f.name}"] for f in (ROOT / "tests").glob("test_*.py")}
    jobs["test_notebooks.py"] += ["--deselect", NOTEBOOK[:-1]]
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        name = path.relative_to(ROOT / "nbs").as_posix()
        if "checkpoints" not in name:
            jobs[name] = [f"{NOTEBOOK}{name}]"]
    site = jobs.pop("test_site.py")
    jobs["site"] = [f"{site[0]}::test_site_builds"]
    for i in range(SHARES):
        jobs[f"pages {i + 1}"] = [*site, "--deselect", *jobs["site"], f"--share={i}/{SHARES}"]
    return jobs


def chosen_jobs(chosen: list[str]) -> dict[str, list[str]]:
    "Of these files and tests: a job for each notebook, and one for each file."
    jobs: dict[str, list[str]] = {}
    for test in chosen:
        file = test.split("::")[0].removeprefix("tests/")
        name = test[len(NOTEBOOK) : -1] if test.startswith(NOTEBOOK) else file
        jobs.setdefault(name, []).append(test)
    return jobs


def longest_first(jobs: dict[str, list[str]]) -> list[str]:
    "Names of jobs; the site is built first, since others wait for it."
    with COSTS.open(encoding="utf-8", newline="") as file:
        seconds = {row["source"]: float(row["wall"]) for row in csv.DictReader(file)}
    seconds |= {"site": float("inf")} | {name: 0.0 for name in jobs if name.startswith("pages")}
    return sorted(jobs, key=lambda name: -seconds.get(name, 60.0))


# --- a job, in a process of its own


class Tally:
    "A plugin of pytest that counts outcomes."

    def __init__(self):
        self.counts = Counter()

    def pytest_terminal_summary(self, terminalreporter):
        kinds = "passed", "failed", "error", "skipped", "xfailed", "xpassed"
        self.counts = {k: len(terminalreporter.stats.get(k, ())) for k in kinds}


def work(arguments: list[str], folder: str) -> None:
    "Run pytest; what it says and its counts go to files in a folder."
    with open(f"{folder}/said.txt", "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["IMRET_FORK"] = "fork"  # a notebook may be a plain fork of this process
    gc.freeze()  # what was imported before is not searched for garbage again and again
    import pytest

    tally = Tally()
    code = pytest.main([*arguments, "--durations=0", "--durations-min=30"], plugins=[tally])
    with open(f"{folder}/counts.json", "w") as file:
        json.dump(tally.counts, file)
    left = psutil.Process().children(recursive=True)  # joblib's would wait for five minutes
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    sys.exit(code)


def run(name: str, arguments: list[str]) -> tuple[str, int | None, float, Counter, str]:
    "A job's name, exit code, seconds, counts, and what it said."
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        processes = multiprocessing.get_context("forkserver")
        job = processes.Process(target=work, args=(arguments, folder))
        job.start()
        job.join()
        said = Path(folder, "said.txt").read_text(errors="replace")
        counts = Counter(error=1)  # of a process that was killed
        if (file := Path(folder, "counts.json")).exists():
            counts = Counter(json.loads(file.read_text()))
    return name, job.exitcode, time.perf_counter() - start, counts, said


def run_all(jobs: dict[str, list[str]]) -> int:
    "Work off the queue, say how each job ends, and at last what failed."
    cores = len(psutil.Process().cpu_affinity()) if psutil.LINUX else os.cpu_count() or 1
    workers = max(1, min(cores, psutil.virtual_memory().available // MEMORY, len(jobs)))
    share = str(max(1, cores // workers))
    os.environ |= {"OMP_NUM_THREADS": share, "LOKY_MAX_CPU_COUNT": share, "MPLBACKEND": "agg"}
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process compiles torch anew
    multiprocessing.set_forkserver_preload(PRELOAD)
    start, total, failed = time.perf_counter(), Counter(), []
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run, name, jobs[name]) for name in longest_first(jobs)]
        for number, future in enumerate(as_completed(futures), start=1):
            name, code, seconds, counts, said = future.result()
            total += counts
            told = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
            print(f"{number:4}/{len(jobs)}  {seconds:6.1f} s  {name}: {told}", flush=True)
            if code:
                failed.append(name)
                print(said, flush=True)
    told = ", ".join(f"{n} {kind}" for kind, n in total.items() if n)
    print(f"\n{told} in {time.perf_counter() - start:.0f} s, {workers} at a time", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


def main() -> None:
    os.chdir(ROOT)
    arguments = sys.argv[1:]
    if arguments and arguments[0] != "--changed":
        sys.exit(subprocess.run([sys.executable, "-m", "pytest", *arguments]).returncode)
    chosen = changed.selection(*arguments[1:2]) if arguments else []
    sys.exit(run_all(chosen_jobs(chosen) if chosen else every_job()))


if __name__ == "__main__":
    main()
