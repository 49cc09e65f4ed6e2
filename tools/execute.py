"""Run notebooks in place and keep what they show: `python tools/execute.py [NOTEBOOK ...]`.

A notebook is written only if all its cells ran. Cells with `#| eval: false` or with a flag of
`tst_flags` (settings.ini) keep the outputs that they have."""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbdev.config import get_config
from nbdev.doclinks import nbglob

LIMIT = 600  # seconds a cell


def directives(source: str) -> list[str]:
    "`#| eval: false` gives `eval:false`."
    return [line[2:].replace(" ", "") for line in source.splitlines() if line.startswith("#|")]


def skipped(cell, flags: list[str]) -> bool:
    "Whether a code cell asks not to be run."
    asked = directives(cell.source)
    return "eval:false" in asked or any(flag in asked for flag in flags)


def execute(path: Path, flags: list[str]) -> None:
    "Run a notebook in its own folder and kernel, then write it. A failing cell ends the program."
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(
        nb,
        timeout=LIMIT,
        kernel_name="python3",
        coalesce_streams=True,  # one output for what is printed in pieces
        extra_arguments=["--log-level=40"],  # ipykernel's remarks on its own transport
        resources={"metadata": {"path": str(path.parent)}},
    )
    with client.setup_kernel():
        for number, cell in enumerate(nb.cells, start=1):
            if cell.cell_type != "code" or skipped(cell, flags):
                continue
            try:
                client.execute_cell(cell, number - 1)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                sys.exit(f"{error}\n{path}: cell {number} ({cell.id}) failed; nothing was written")
    partial = path.with_name(f".{path.name}.partial")
    nbformat.write(nb, partial)
    os.replace(partial, path)


def main() -> None:
    os.environ["TQDM_DISABLE"] = "1"  # progress bars would be saved
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait do not spin
    os.environ.pop("MPLBACKEND", None)  # with `agg` no figure would be
    cfg = get_config()
    os.environ.setdefault("IMRET_DATA", str(cfg.config_path / "data"))  # not beside the notebook
    paths = [Path(p) for p in sys.argv[1:]] or sorted(nbglob(cfg.nbs_path, as_path=True))
    for path in paths:
        start = time.perf_counter()
        execute(path, cfg.tst_flags.split())
        print(f"{time.perf_counter() - start:5.1f} s  {os.path.relpath(path)}", flush=True)


if __name__ == "__main__":
    main()
