"""Every check: `tools/test.py [pytest's arguments]`.

Without arguments the notebooks run in one pytest and all else in another, side by side: each leaves
a core idle half of the time. What the notebooks' one says is shown when both are done."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = "tests/test_notebooks.py"
PYTEST = [sys.executable, "-m", "pytest"]


def side_by_side() -> int:
    "The exit code of whichever fails, or 0."
    with tempfile.TemporaryFile("w+") as said:
        notebooks = subprocess.Popen([*PYTEST, NOTEBOOKS], cwd=ROOT, stdout=said, stderr=said)
        try:
            rest = subprocess.run([*PYTEST, "tests", f"--ignore={NOTEBOOKS}"], cwd=ROOT).returncode
            code = notebooks.wait()
        finally:
            notebooks.kill()
        said.seek(0)
        print(said.read(), flush=True)
    return rest or code


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(
        subprocess.run([*PYTEST, *arguments], cwd=ROOT).returncode if arguments else side_by_side()
    )
