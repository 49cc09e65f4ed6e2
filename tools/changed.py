"""Which tests a change can touch, by what imports what: `tools/changed.py [COMMIT]` lists them.

`tools/test.py --changed [COMMIT]` runs them. Changed is what differs from the commit (HEAD: what
is not committed yet), files that git does not know included. A test or notebook is touched if it
changed, if it imports something from a module that did, directly or through others, if it names in
quotes what such a module registers, or if it opens the page of a notebook that did. A name
imported from a room counts as imported from the module that defines it. What is neither module,
notebook nor test touches whatever mentions it; conftest.py and settings.ini touch all."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import house

ROOT = house.ROOT
ALWAYS = ["tests/test_sync.py", "tests/test_rooms.py"]
EVERYTHING = {"settings.ini", "setup.py", "pyproject.toml", "Makefile", "tests/conftest.py"}
IMPORT = re.compile(r"(?:from\s+(imret[\w.]*)\s+import\s+\(?([\w\s,]+)|import\s+(imret[\w.]*))")


def changed_files(base: str = "HEAD") -> set[str]:
    "Paths below the repository that differ from a commit, or are new."
    found = set()
    for command in (
        ["diff", "--name-only", base],
        ["ls-files", "--others", "--exclude-standard"],
    ):
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"git {' '.join(command)}: {done.stderr.strip()}")
        found |= set(done.stdout.splitlines())
    return found


# --- what uses what


def module_name(path: Path) -> str:
    "`imret/nets/pooling.py` is imret.nets.pooling; the face of a room is the room."
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def definers() -> dict[str, str]:
    "For each name that a room offers, `imret.nets.GeM`, the module that defines it."
    found = {}
    for face in house.LIBRARY.rglob(
        "__init__.py*"
    ):  # names stand in __init__.pyi where a room is lazy
        for name in house.imported(face):
            found[f"{module_name(face)}.{name.rpartition('.')[2]}"] = name.rpartition(".")[0]
    return found


@cache
def modules() -> dict[str, Path]:
    "Every module of the library by its name."
    return {module_name(p): p for p in house.LIBRARY.rglob("*.py") if p.stem != "_modidx"}


def defined_in(name: str) -> str | None:
    "The module that a full name, `imret.nets.GeM` or `imret.nets.pooling`, comes from."
    name = f"{definers()[name]}.{name.rpartition('.')[2]}" if name in definers() else name
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


@cache
def named_in(text: str) -> set[str]:
    "Modules that a text imports from, in code or in strings that are run elsewhere."
    names = set()
    for origin, what, whole in IMPORT.findall(text):
        names |= {f"{origin}.{o}" for o in re.findall(r"\w+", what)} if origin else {whole}
    return {defined_in(name) for name in names} - {None}


@cache
def used_by(module: str) -> set[str]:
    "The modules that a module imports from."
    path = modules()[module]
    names = [] if path.stem == "__init__" else house.imported(path)
    return {defined_in(n) for n in names if n.startswith("imret.")} - {None}


@cache
def registered_by(module: str) -> set[str]:
    "What a module registers: the first text in each call of `register_…` or `….register`."
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if function.startswith("register"):
                found.add(node.args[0].value)
    return found


@cache
def quoted(text: str) -> set[str]:
    "The words that stand between quotes, colons and dashes."
    return set(re.findall(r"(?<=[\"'-])[\w-]+(?=[\"':])|(?<=[\"'-])\w+(?=-)", text))


def quotes(text: str, words: set[str]) -> bool:
    'Whether one of the words begins something in quotes, as in `"emoji:split=all"`.'
    return not words.isdisjoint(quoted(text))


def touched_by(first: set[str]) -> set[str]:
    "These modules, and all that import from them or name what they register."
    touched = set(first)
    while True:
        names = set().union(*map(registered_by, touched))
        more = {
            n
            for n, path in modules().items()
            if n not in touched
            and path.stem != "__init__"
            and (used_by(n) & touched or quotes(code(path), names))
        }
        if not more:
            return touched
        touched |= more


# --- notebooks and tests


@cache
def code(path: Path) -> str:
    "The code of a test, a module or a notebook."
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def exported_by(path: Path) -> str | None:
    "The file of the library that a notebook writes."
    found = re.search(r"^#\|\s*default_exp\s+(\S+)", code(path), re.M)
    return found and f"imret/{found[1].replace('.', '/')}.py"


def page_of(notebook: str) -> str:
    "`10_datasets/00_base.ipynb` is `datasets/base.html` on the site."
    return re.sub(r"(^|/)\d+[a-z]?_", r"\1", notebook).replace(".ipynb", ".html")


def mentions(text: str, files: list[str]) -> bool:
    "Whether a text names one of these files, or its folder, in quotes."
    words = {w for f in files for w in (Path(f).name, Path(f).stem, Path(f).parent.name)}
    return any(f'"{w}"' in text or f"{w}." in text for w in words)


def selection(base: str = "HEAD") -> list[str]:
    "Arguments for pytest; empty: everything."
    changed = changed_files(base)
    if changed & EVERYTHING:
        return []
    found = sorted((ROOT / "nbs").rglob("*.ipynb"))
    notebooks = {p.relative_to(ROOT / "nbs").as_posix(): p for p in found}
    edited = [name for name in notebooks if f"nbs/{name}" in changed]
    changed |= {exported_by(notebooks[name]) for name in edited} - {None}
    plain = "nbs/", "imret/", "tests/", "benchmarks/", ".github/"
    other = [f for f in changed if not f.startswith(plain) or f.startswith("imret/data/")]
    first = {
        name: str(path.relative_to(ROOT))
        for name, path in modules().items()
        if str(path.relative_to(ROOT)) in changed or (other and mentions(code(path), other))
    }
    touched = touched_by(set(first))
    names = set().union(*map(registered_by, touched))
    pages = [page_of(name) for name in edited]

    def is_touched(text: str) -> bool:
        return bool(named_in(text) & touched) or quotes(text, names)

    def opens(text: str) -> bool:
        return any(f'"{page}"' in text or f"/{page}" in text for page in pages)

    chosen = list(ALWAYS)
    for test in sorted((ROOT / "tests").glob("test_*.py")):
        file, text = f"tests/{test.name}", code(test)
        if file in changed or is_touched(text) or (other and mentions(text, other)):
            chosen.append(file)
        elif test.name != "test_site.py" and opens(text):
            chosen.append(file)
    if "tests/test_notebooks.py" not in chosen:
        chosen += [
            f"tests/test_notebooks.py::test_notebook[{name}]"
            for name, path in notebooks.items()
            if name in edited or is_touched(code(path)) or exported_by(path) in first.values()
        ]
        forms = "test_form", "test_cells_with_imports", "test_outputs"
        chosen += [f"tests/test_notebooks.py::{t}[{name}]" for t in forms for name in edited]
    if "tests/test_site.py" not in chosen and pages:
        tests = "test_links[{}]", "test_page[{}]", "test_colours[light-{}]", "test_colours[dark-{}]"
        asked = ["test_site_builds", *(t.format(page) for page in pages for t in tests)]
        chosen += [f"tests/test_site.py::{test}" for test in asked]
    return chosen


if __name__ == "__main__":
    print("\n".join(selection(*sys.argv[1:2]) or ["everything"]))
