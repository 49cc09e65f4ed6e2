"""The rule of the house: a room imports only from rooms above it, in the order of tools/house.py.

And the library stands alone: no development tool at run time, nothing that settings.ini does not
name, nothing heavy before it is needed."""

import ast
import builtins
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions

import house
import pytest
from nbdev.config import get_config

MODULES = house.modules()
each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[str(p.relative_to(house.LIBRARY)) for p in MODULES]
)


@each_module
def test_imports_go_up(path):
    room = house.room_of(path)
    assert room in house.ROOMS, f"a new room: give {room!r} its place in tools/house.py"
    above = house.ROOMS[: house.ROOMS.index(room) + 1]
    for name in house.imported(path):
        if name.startswith("imret.") and name != "imret.__version__":
            other = name.split(".")[1]
            assert other in above, f"{room} stands above {other}, and may not import {name}"
        assert not re.match(r"(fastcore|nbdev|execnb)\b", name), f"{name} is for development only"


@cache
def distributions() -> dict[str, list[str]]:
    "For each name that can be imported, the packages that bring it."
    return packages_distributions()


@each_module
def test_requirements(path):
    "Every package a module imports is one that settings.ini requires."
    stated = {re.match(r"[\w.-]+", r)[0].lower() for r in get_config().requirements.split()}
    known = distributions()
    for name in {n.split(".")[0] for n in house.imported(path)}:
        if name == "imret" or name in sys.stdlib_module_names:
            continue
        packages = {p.lower().replace("_", "-") for p in known.get(name, [name])}
        assert packages & stated, f"{name}: settings.ini's requirements name none of {packages}"


def loaded_after(*packages: str) -> list[set[str]]:
    "What is in memory of a new Python after each of these imports."
    code = "import sys\n" + "".join(
        f"import {p}\nprint(*{{name.split('.')[0] for name in sys.modules}})\n" for p in packages
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


HEAVY = {"torch", "torchvision", "timm", "faiss"}
LIGHT = {  # what must not be loaded yet, the most first: all are imported by one process
    **{f"imret{o}": HEAVY | {"cv2"} for o in ("", ".core", ".cli", ".evaluation", ".search")},
    **{f"imret.{o}": HEAVY for o in ("datasets", "nets", "features", "explore", "engine")},
    "imret.nets.onnx": HEAVY | {"onnx"},
    **{f"imret.{o}": HEAVY - {"torch"} for o in ("training", "ablation")},
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    return dict(zip(LIGHT, loaded_after(*LIGHT), strict=True))


@pytest.mark.parametrize("package", LIGHT)
def test_light(loaded, package):
    "torch and its like wait until they are needed: with timm a process begins 3 s later."
    assert not LIGHT[package] & loaded[package]


def test_library_stands_alone():
    "All rooms imported: no fastcore, no nbdev."
    loaded = loaded_after(*(f"imret.{room}" for room in house.house()))
    assert not {"fastcore", "nbdev", "execnb"} & loaded[-1]


def test_table_of_rooms():
    "The table in CONTRIBUTING.md says what the modules do."
    assert house.guide() == house.GUIDE.read_text(encoding="utf-8"), "run `make fix`"


@each_module
def test_annotations_are_names_of_the_module(path):
    "The site evaluates them: a name imported only for type checkers would stop its build."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {o.name for o in tree.body if isinstance(o, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            named |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    for node in ast.walk(tree):
        hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for hint in hints:
            if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
                used = {o.id for o in ast.walk(ast.parse(hint.value)) if isinstance(o, ast.Name)}
                unknown = used - named - set(dir(builtins))
                assert not unknown, f"{path.name}, line {hint.lineno}: {unknown} is not imported"
