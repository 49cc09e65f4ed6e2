"""The package as a stranger gets it: `python tools/wheel.py [FOLDER]`.

Builds the source distribution and from it the wheel, as `python -m build` does; compares what is
in the wheel with imret/ here; installs it into an empty environment outside the clone, and there
makes the photographs, indexes them and searches with one. Ends with 1 where a step fails. FOLDER
keeps the two files, else all is deleted in the end."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PHOTO = "china"  # what is searched for


def run(*command, **more) -> str:
    "What a command prints; where it fails, all that it said."
    command = [str(o) for o in command]
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}failed: {' '.join(command)}")
    return done.stdout


def say(start: float, text: str) -> None:
    print(f"{time.perf_counter() - start:6.1f} s  {text}", flush=True)


def build(folder: Path) -> Path:
    "The wheel. By way of the source distribution, so that nothing left in build/ gets into it."
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def library() -> set[str]:
    "Files below imret/ that git knows, or would add."
    command = "git", "ls-files", "--cached", "--others", "--exclude-standard", "imret"
    return {name for name in run(*command, cwd=ROOT).splitlines() if (ROOT / name).exists()}


def contents(wheel: Path) -> set[str]:
    "Files of a wheel, but for those about it."
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    return {name for name in names if not re.match(r"[^/]+\.dist-info/", name)}


def install(wheel: Path, folder: Path) -> Path:
    "A new environment with the wheel and what it requires; the folder of its commands."
    venv.create(folder)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    run(sys.executable, "-m", "uv", "pip", "install", "--python", commands / "python", wheel)
    return commands


def answer(commands: Path, folder: Path) -> list[str]:
    "The first three photographs that `imret search` finds, as the folders that they are in."
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "IMRET", "VIRTUAL"))}
    here = {"cwd": folder, "env": keep | {"IMRET_DATA": str(folder / "data")}}
    imret = shutil.which("imret", path=str(commands))
    run(imret, "data", "get", "photos", **here)
    photos = folder / "data" / "photos-v1"
    run(imret, "index", photos / "database", "--out", "index", "--image-size", "160", **here)
    found = run(imret, "search", "index", photos / "query" / f"{PHOTO}.jpg", "-k", "3", **here)
    return [Path(line.split(maxsplit=2)[2]).parent.name for line in found.splitlines()]


def main() -> None:
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # as in tools/install.py
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        outside = Path(temporary)
        wheel = build(Path(sys.argv[1]) if sys.argv[1:] else outside / "dist")
        say(start, f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        if differ := sorted(library() ^ contents(wheel)):
            sys.exit(f"in imret/ or in the wheel, but not in both: {' '.join(differ)}")
        commands = install(wheel, outside / "environment")
        version = run(commands / "python", "-c", "import sys; print(sys.version.split()[0])")
        say(start, f"installed into an empty environment of Python {version.strip()}")
        found = answer(commands, outside)
        say(start, f"a search for {PHOTO} finds {', '.join(found)}")
        if found[0] != PHOTO:
            sys.exit(f"the first should be {PHOTO}")


if __name__ == "__main__":
    main()
