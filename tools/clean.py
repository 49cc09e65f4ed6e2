"""Leave in notebooks only what their author changed.

    python tools/clean.py [--check] [NOTEBOOK ...]

nbdev's own cleaning, and two things more. Widget state goes: its ids are new at every run, and the
site's widgets carry their own. Figures become PNGs of 128 colours without metadata: a quarter of
the size, and the same bytes at every run. `--check` changes nothing; it ends with 1 where cleaning
would."""

import base64
import io
import json
import os
import sys
from pathlib import Path

from execnb.nbio import dict2nb, nb2str
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from PIL import Image

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def small_png(data: str) -> str:
    "A PNG in base64 as one of 128 colours without metadata; one that is so already stays."
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    if image.mode == "P" and not image.info.keys() - {"transparency"}:
        return data
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    image = image.quantize(128, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    image.info.clear()
    out = io.BytesIO()
    image.save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def clean_outputs(nb: dict) -> None:
    "Drop widget state and shrink figures, in place."
    nb["metadata"].pop("widgets", None)
    for cell in nb["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            if "image/png" in data:
                data["image/png"] = small_png("".join(data["image/png"]))


def cleaned(path: Path) -> str:
    "The text of the notebook as it should be."
    cfg = get_config()
    nb = json.loads(path.read_text(encoding="utf-8"))
    clean_outputs(nb)
    nb = dict2nb(nb)
    keep = cfg.allowed_metadata_keys.split(), cfg.allowed_cell_metadata_keys.split()
    clean_nb(nb, cfg.clear_all, *keep, cfg.clean_ids)
    return nb2str(nb)


def main() -> None:
    check = "--check" in sys.argv
    paths = [Path(p) for p in sys.argv[1:] if p != "--check"]
    unclean = []
    for path in paths or sorted(nbglob(get_config().nbs_path, as_path=True)):
        text = cleaned(path)
        if text == path.read_text(encoding="utf-8"):
            continue
        unclean.append(os.path.relpath(path))
        if not check:
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
    if check and unclean:
        sys.exit(f"not clean, run `make fix`: {' '.join(unclean)}")


if __name__ == "__main__":
    main()
