"""Make `.venv` and install imret, its development tools and JupyterLab into it.

`make` calls this whenever settings.ini has changed. It needs nothing but Python's own library.
"""

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from shutil import copy, rmtree

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
WHAT = ["-e", ".[dev,lab]"]


def check_python():
    "Stop with one clear line where this Python is too old."
    config = ConfigParser(delimiters=["="])
    config.read(str(ROOT / "settings.ini"))
    least = config["DEFAULT"]["min_python"]
    if sys.version_info[:2] < tuple(int(o) for o in least.split(".")):
        have = ".".join(str(o) for o in sys.version_info[:2])
        sys.exit(
            f"imret needs Python {least} or newer, but {sys.executable} is {have}. "
            "If a newer one is installed, name it: make PYTHON=python3.12"
        )


def ok(*command):
    "Whether the command ends well; what it prints goes to the terminal."
    return subprocess.call([str(o) for o in command], cwd=str(ROOT)) == 0


def make_venv():
    "Create `.venv`, anew if an interrupted run has left one without pip."
    if PYTHON.exists() and ok(PYTHON, "-c", "import pip"):
        return
    if VENV.exists():
        rmtree(str(VENV))
    if not ok(sys.executable, "-m", "venv", VENV):
        sys.exit("python3 -m venv failed. On Debian and Ubuntu: apt install python3-venv")


def install():
    """Install with uv, which is many times faster than pip; fall back on pip.

    A uv that ends badly is asked once more: some versions crash after their work is done, and the
    second call then finds nothing left to do. pip has the last word."""
    quiet = [] if sys.stdout.isatty() else ["-q"]
    uv = [PYTHON, "-m", "uv", "pip", "install", *quiet, "--python", PYTHON, *WHAT]
    if ok(PYTHON, "-m", "pip", "install", "-q", "uv") and (ok(*uv) or ok(*uv)):
        return
    print("uv did not succeed; pip takes over", flush=True)
    if not ok(PYTHON, "-m", "pip", "install", *quiet, *WHAT):
        sys.exit("the installation failed: the lines above say why")


def configure_lab():
    "JupyterLab asks no questions about news or updates."
    settings = VENV / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    copy(str(ROOT / "tools" / "lab.json"), str(settings / "overrides.json"))


if __name__ == "__main__":
    # uv brings its own certificates; behind a proxy only the system's are the right ones
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")
    check_python()
    make_venv()
    print("Installing imret into .venv (the first time about 7 GB, mostly torch) ...", flush=True)
    install()
    configure_lab()
