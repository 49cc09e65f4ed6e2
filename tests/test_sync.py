"""The modules are what the notebooks export, the README what its notebook says, all of it clean."""

import filecmp
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.config import get_config
from test_notebooks import NOTEBOOKS, cells

CFG = get_config()
LINTED = "nbs", "imret", "tests", "tools", "benchmarks", "setup.py"


def run(*command) -> subprocess.CompletedProcess:
    command = [sys.executable, *command]
    return subprocess.run(command, capture_output=True, text=True, cwd=CFG.config_path)


def test_ruff_check():
    done = run("-m", "ruff", "check", *LINTED)
    assert done.returncode == 0, done.stdout


def test_ruff_format():
    done = run("-m", "ruff", "format", "--check", *LINTED)
    assert done.returncode == 0, done.stdout


def test_notebooks_are_clean():
    done = run("tools/clean.py", "--check")
    assert done.returncode == 0, done.stderr


def test_readme():
    done = run("tools/readme.py", "--check")
    assert done.returncode == 0, done.stderr


def test_figures():
    "Pictures in figures/ are those that the notebooks drew."
    done = run("tools/figures.py", "--check")
    assert done.returncode == 0, done.stderr


def modules_named() -> list[str]:
    "The module of each `default_exp`, as a path below imret/."
    code = [c["source"] for p in NOTEBOOKS for c in cells(p) if c["cell_type"] == "code"]
    names = [re.search(r"^#\|\s*default_exp\s+(\S+)", source, re.M) for source in code]
    return [name[1].replace(".", "/") + ".py" for name in names if name]


def test_no_orphans():
    "Each notebook has its own module, and each module its notebook."
    named = modules_named()
    twice = {n for n in named if named.count(n) > 1}
    assert not twice, f"two notebooks export {twice}: the later would overwrite the earlier"
    written_by_hand = {"__init__.py", "_modidx.py"}
    found = [p for p in CFG.lib_path.rglob("*.py") if p.name not in written_by_hand]
    assert set(named) == {p.relative_to(CFG.lib_path).as_posix() for p in found}


def test_export_changes_nothing(tmp_path):
    "`nbdev_export` in a copy writes the modules that are here."
    shutil.copy(CFG.config_path / "settings.ini", tmp_path)
    for folder in ("nbs", "imret"):
        ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.partial")
        shutil.copytree(CFG.config_path / folder, tmp_path / folder, ignore=ignore)
    export = Path(sys.executable).with_name("nbdev_export")
    subprocess.run([export], cwd=tmp_path, check=True, capture_output=True)
    for path in (tmp_path / "imret").rglob("*.py"):
        name = path.relative_to(tmp_path / "imret")
        here = CFG.lib_path / name
        same = here.exists() and filecmp.cmp(path, here, shallow=False)
        assert same, f"imret/{name} is not what its notebook exports: run `make fix`"
