"""Keep pictures that notebooks drew as files, for pages that run nothing: `tools/figures.py`.

A cell with `#| label: NAME` gives figures/NAME.png, from the saved output of the notebook. Those of
nbs/index.ipynb are the README's, see readme.py. `--check` changes nothing; it ends with 1 where a
file is stale."""

import base64
import sys

from execnb.nbio import read_nb
from nbdev.doclinks import nbglob
from readme import CFG, ROOT, directive


def figures() -> dict[str, bytes]:
    "The pictures of labelled cells, by their path in the repository."
    found = {}
    for notebook in nbglob(CFG.nbs_path, as_path=True):
        if notebook.absolute() == (CFG.nbs_path / CFG.readme_nb).absolute():
            continue
        for cell in read_nb(notebook).cells:
            name = cell.cell_type == "code" and directive("".join(cell.source), "label")
            for out in cell.get("outputs", []) if name else []:
                if "image/png" in out.get("data", {}):
                    path = f"figures/{name}.png"
                    if path in found:
                        sys.exit(f"{notebook}: another cell is labelled {name}, too")
                    found[path] = base64.b64decode("".join(out["data"]["image/png"]))
    return found


def main() -> None:
    stale = {}
    for path, picture in figures().items():
        if not (ROOT / path).exists() or (ROOT / path).read_bytes() != picture:
            stale[path] = picture
    if "--check" in sys.argv:
        if stale:
            sys.exit(f"{' '.join(stale)}: not what the notebook drew, run `make fix`")
        return
    for path, picture in stale.items():
        (ROOT / path).write_bytes(picture)


if __name__ == "__main__":
    main()
