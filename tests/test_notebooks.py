"""Every notebook runs from top to bottom, in its own process, and has the form of a notebook here.

Such a process is a fork of one that has imported what takes longest to import, and nothing of
imret; whatever it started ends with it. Cells with `#| eval: false`, or a flag of `tst_flags` in
settings.ini, are not run."""

import ast
import json
import multiprocessing
import os
import re
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

CFG = get_config()
NOTEBOOKS = sorted(Path(p).absolute() for p in nbglob(CFG.nbs_path, as_path=True))
each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=[str(p.relative_to(CFG.nbs_path.absolute())) for p in NOTEBOOKS]
)

FORKS = multiprocessing.get_context(os.environ.get("IMRET_FORK", "forkserver"))
SECONDS = 900
KILOBYTES = 300
SLOW_IMPORTS = ["nbdev.test", "torch", "timm", "pandas", "matplotlib.pyplot", "seaborn"]
SLOW_IMPORTS += ["scipy.stats", "sklearn.cluster", "sklearn.decomposition", "skimage", "cv2"]


def play(path: Path, said: str) -> None:
    "Run a notebook in this process, which ends with 1 where it fails; all it says goes to a file."
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    name = path.relative_to(CFG.nbs_path.absolute())
    os.environ["PYTEST_CURRENT_TEST"] = f"tests/test_notebooks.py::test_notebook[{name}]"
    from nbdev.test import test_nb

    passed, _ = test_nb(path, skip_flags=CFG.tst_flags.split(), basepath=str(CFG.config_path))
    left = psutil.Process().children(recursive=True)  # joblib's would wait for minutes
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    sys.exit(not passed)


def run(path: Path) -> tuple[int | None, str]:
    "The exit code of a notebook, None where it ran too long, and what it said."
    with tempfile.NamedTemporaryFile("r") as said:
        process = FORKS.Process(target=play, args=(path, said.name))
        process.start()
        process.join(SECONDS)
        process.kill()
        return process.exitcode, said.read()


@pytest.fixture(scope="session")
def forks() -> None:
    "The process that notebooks are forks of. What they make or download lands in data/, once."
    os.environ.setdefault("IMRET_DATA", str(CFG.config_path / "data"))
    os.environ["MPLBACKEND"] = "agg"
    multiprocessing.set_forkserver_preload(SLOW_IMPORTS)


@each_notebook
def test_notebook(path, forks):
    "It runs without error."
    code, said = run(path)
    if code != 0:
        late = f"ran longer than {SECONDS} s; " if code is None else ""
        pytest.fail(f"{late}exit code {code}: {said[-8000:]}", pytrace=False)


def cells(path: Path) -> list[dict]:
    "The notebook's cells, each with its source as one string."
    nb = json.loads(path.read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in nb["cells"]]


@each_notebook
def test_form(path):
    "First a title and a promise; small; exports into a named module."
    first, *rest = cells(path)
    assert first["cell_type"] == "markdown"
    form = r"# \S.*\n+> \S.*(\n(?!>)|\Z)"
    assert re.match(form, first["source"]), "cell 1: `# title`, then `> promise` on one line"
    size = path.stat().st_size / 1000
    assert size < KILOBYTES, f"{size:.0f} kB with outputs: smaller or fewer figures, please"
    code = "\n".join(cell["source"] for cell in rest if cell["cell_type"] == "code")
    if re.search(r"^#\|\s*export", code, re.M):
        assert re.search(r"^#\|\s*default_exp\s", code, re.M), "exports, but says not whereto"


@each_notebook
def test_cells_with_imports(path):
    "The site's build runs every cell that imports: no work beside an import, but a plot style."
    for number, cell in enumerate(cells(path), start=1):
        source = cell["source"]
        if cell["cell_type"] != "code" or re.match(r"#\|\s*(export|eval:\s*false)", source):
            continue
        body = ast.parse(re.sub(r"^\s*[%!].*", "", source, flags=re.M)).body
        imports = [o for o in body if isinstance(o, ast.Import | ast.ImportFrom)]
        others = [o for o in body if o not in imports and "plt.style.use" not in ast.unparse(o)]
        assert not (imports and others), f"cell {number} ({cell['id']}): imports alone, please"


@each_notebook
def test_outputs(path):
    "What is saved is the same on every machine: no error, no path, no address, no bar."
    for number, cell in enumerate(cells(path), start=1):
        for output in cell.get("outputs", []):
            where = f"cell {number} ({cell['id']})"
            assert output["output_type"] != "error", f"{where}: a saved error"
            assert output.get("name") != "stderr", f"{where}: a saved warning or progress bar"
            shown = [output.get("text", ""), *output.get("data", {}).values()]
            text = "\n".join("".join(s) for s in shown if isinstance(s, str | list))
            text = re.sub(r"base64,[\w+/=]+", "", text)
            bad = re.search(r"/(?:home|root|tmp|Users|work)/\S*| at 0x[0-9a-f]{6,}", text)
            assert not bad, f"{where}: saved output holds {bad[0]}"


def test_nothing_hides():
    "nbdev skips, without a word, names with `_`, folders with .notest, and skip_exec."
    for path in CFG.nbs_path.rglob("*"):
        parts = path.relative_to(CFG.nbs_path).parts
        if ".ipynb_checkpoints" in parts or path.suffix == ".partial":
            continue
        assert path.name != ".notest", path
        if path.suffix == ".ipynb":
            assert not any(part.startswith(("_", ".")) for part in parts), path
            assert "skip_exec" not in path.read_text(encoding="utf-8"), path
