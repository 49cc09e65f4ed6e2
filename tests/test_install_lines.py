"""Whoever is told to install imret installs imret: name, extras and versions as in settings.ini."""

import json
import re
import shlex
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import install
import pytest
from nbdev.config import get_config

import imret

CFG = get_config()
ROOT = CFG.config_path
EXTRAS = {key.removesuffix("_requirements") for key in CFG.d if key.endswith("_requirements")}
WORD = r"""(?:'[^'\n]*'|"[^"\n]*"|[^\s'"`;&|)\\]+)"""
LINE = re.compile(rf"pip3? install((?: +{WORD})+)")
VALUES = {"-r", "-c", "-i", "--index-url", "--python", "--target"}  # options whose value follows


def in_notebook(path: Path) -> str:
    "What a notebook says, and what it printed."
    texts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        texts.append("".join(cell["source"]))
        for out in cell.get("outputs", []):
            texts += ["".join(out.get("text", "")), "".join(out.get("traceback", ""))]
            texts.append("".join(out.get("data", {}).get("text/plain", "")))
    return "\n".join(texts)


def installs() -> list[tuple[str, str]]:
    "Each thing that some text says to install, after the text's path."
    files = [p for pattern in ("*.md", "nbs/*.md", "data/*.md") for p in ROOT.glob(pattern)]
    for pattern in ("nbs/**/*.ipynb", "imret/**/*.py", ".github/**/*.yml", "Makefile", ".ci/*"):
        files += ROOT.glob(pattern)
    found = []
    for path in sorted(p for p in files if ".ipynb_checkpoints" not in p.parts):
        text = in_notebook(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        for line in LINE.findall(text):
            words = shlex.split(line, comments=True)
            after = [None, *words]
            things = [w for w, a in zip(words, after, strict=False) if a not in VALUES]
            things = [w for w in things if not w.startswith("-") and "{" not in w]
            found += [(path.relative_to(ROOT).as_posix(), w) for w in things]
    return list(dict.fromkeys(found))


INSTALLS = installs()


def wrong(thing: str) -> str | None:
    "Why this should not be installed; None if it is right."
    known = {re.match(r"[\w.-]+", r)[0] for e in EXTRAS for r in CFG.d[f"{e}_requirements"].split()}
    known |= {re.match(r"[\w.-]+", r)[0] for r in CFG.requirements.split()}
    name, extras, address = re.fullmatch(
        r"([\w.-]+)(?:\[([\w,]+)\])?(?:\s*@\s*(\S+))?.*", thing
    ).groups()
    if name not in (CFG.lib_name, "."):
        return None if name in known else f"settings.ini knows no {name}"
    if odd := {*(extras or "").split(",")} - EXTRAS - {""}:
        return f"settings.ini has no extra {odd}"
    if address and address != f"git+{CFG.git_url}":
        return f"{address} is not git_url"
    return None


@pytest.mark.parametrize(("file", "thing"), INSTALLS)
def test_install_line(file, thing):
    assert wrong(thing) is None, f"{file}: {thing}"


def test_lines_are_found():
    "The reader above finds the lines of each kind: a README's, an error's, a notebook's."
    assert ("README.md", f"{CFG.lib_name} @ git+{CFG.git_url}") in INSTALLS
    assert ("README.md", ".[dev]") in INSTALLS
    assert ("imret/nets/onnx.py", f"{CFG.lib_name}[export]") in INSTALLS
    assert ("nbs/20_nets/40_export.ipynb", f"{CFG.lib_name}[export]") in INSTALLS
    assert ("imret/training/trainer.py", f"{CFG.lib_name}[train]") in INSTALLS


@pytest.mark.parametrize(
    "thing", ["imret", "imret[train]", "imretrieval[gpus]", "imretrieval @ git+https://a.b/c"]
)
def test_a_wrong_line_is_told(thing):
    assert wrong(thing)


def test_make_installs_what_there_is():
    assert wrong(install.WHAT[-1]) is None


def test_installed_under_its_name():
    "What is installed here has the version of the library, and brings the command and the pages."
    assert version(CFG.lib_name) == imret.__version__ == CFG.version
    (command,) = {e.value for e in entry_points(group="console_scripts", name="imret")}
    assert command == CFG.console_scripts.partition("=")[2]
    assert entry_points(group="nbdev", name=CFG.lib_path.name)


def test_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[?([\d.]+)", text, re.M)[1] == CFG.version


def test_pythons():
    "What the package claims is what the workflow tries, from the least that settings.ini takes."
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    tried = re.findall(r"\d\.\d+", re.search(r"python: \[(.*)\]", workflow)[1])
    claimed = re.findall(r"Python :: (\d\.\d+)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert tried == claimed and tried[0] == CFG.min_python
    ruff = tomllib.loads((ROOT / "ruff.toml").read_text(encoding="utf-8"))
    assert ruff["target-version"] == "py" + CFG.min_python.replace(".", "")
