"""Build the site, `_docs/`, without Quarto: nbdev processes the notebooks, smalldocs renders them.

`--sidebar` only writes `nbs/sidebar.yml`, which those who have Quarto need before `nbdev_docs`.

Numbers in file names order the course and show nowhere on the site: the page of
`nbs/10_datasets/00_base.ipynb` is `datasets/base.html`. All links inside the site are relative, and
everything a page loads lies in the site, so it works from any folder and without network.
"""

import gc
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Self

import nbdev.serve
import traitlets
import yaml
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, nbglob
from nbdev.processors import FilterDefaults
from nbdev.quarto import refresh_quarto_yml

CFG = get_config()
BASE = f"{CFG.doc_host}{CFG.doc_baseurl}/"  # what nbdev's links to the site begin with
KATEX = Path("node_modules/katex/dist")
KATEX_CDN = "https://cdn.jsdelivr.net/npm/katex@0.16.11/dist"  # what smalldocs' pages begin with


def plain(path: str | Path) -> str:
    "`10_datasets/00_base.ipynb` becomes `datasets/base.ipynb`."
    return re.sub(r"(^|/)\d+[a-z]?_", r"\1", str(path))


# --- the sidebar


def pages() -> list[Path]:
    "Every page below nbs/, in the order of the course: numbers first, an index before its room."
    found = nbglob(CFG.nbs_path, as_path=True, file_re=r"\.(?:ipynb|qmd|md)$")

    def key(path: Path):
        return [(p[0].isdigit(), p.split(".")[0] != "index", p) for p in path.parts]

    return sorted((Path(p).relative_to(CFG.nbs_path) for p in found), key=key)


def sidebar() -> dict:
    """The start page, the tutorials, then the library in its order.

    A folder is a section; its index.ipynb is the page that the section's own name leads to."""
    contents, sections = [], {}
    for page in pages():
        folder = page.parts[0]
        if len(page.parts) == 1:
            first = {"text": "Start", "href": str(page)}
            contents.append(first if page.stem == "index" else str(page))
            continue
        if folder not in sections:
            sections[folder] = {"section": plain(folder), "contents": []}
            contents.append(sections[folder])
        if page.stem == "index":
            sections[folder]["href"] = str(page)
        else:
            sections[folder]["contents"].append(str(page))
    return {"website": {"sidebar": {"contents": contents}}}


def write_sidebar() -> None:
    text = yaml.safe_dump(sidebar(), sort_keys=False)
    (CFG.nbs_path / "sidebar.yml").write_text(text, encoding="utf-8")


# --- nbdev's processing


class ShowSource(FilterDefaults):
    "nbdev shows the signature of what is exported, and hides the code; here one can unfold it."

    def __call__(self, nb):
        for cell in nb.cells:
            if cell.cell_type == "code":  # imports alone stay hidden
                export = r"\A#\|\s*export\s*\n(?!\s*(import|from)\b)"
                cell.source = re.sub(export, "#| exports\n", cell.source)
        return super().__call__(nb)


def process() -> Path:
    "Run nbdev's processing over all notebooks; the folder of what it made."
    # a cell with imports may choose the plot style too; tests/test_notebooks.py watches the rest
    warnings.filterwarnings("ignore", "Found cells containing imports")
    nbdev.serve.FilterDefaults = ShowSource
    # a widget's signature names `Self`, which traitlets imports for type checkers only
    traitlets.traitlets.Self = Self
    return nbdev.serve.proc_nbs(force=True, n_workers=0)  # one process: torch is imported once


# --- between nbdev and smalldocs: plain names


def mend_text(text: str) -> str:
    "Links follow the pages to their plain names; what smalldocs reads otherwise is rewritten."
    text = re.sub(re.escape(BASE) + r"[\w./]+", lambda m: BASE + plain(m[0][len(BASE) :]), text)
    text = re.sub(r"\]\((?!\w+:)[\w./-]+\.ipynb", lambda m: "](" + plain(m[0][2:]), text)
    # nbdev's page names keep the folder's number, and smalldocs does not read them
    text = re.sub(r"^output-file: .*\n", "", text, flags=re.M)
    # `### A.__call__` would turn bold and lose its anchor
    return re.sub(r"^(#+ [\w.]+\.)__(\w+)__", r"\1\\_\\_\2\\_\\_", text, flags=re.M)


def mend_signature(text: str) -> str:
    "What show_doc wrote, its code without links: nbdev puts them into comments too."
    link = re.compile(r"\[(`[^`]*`)\]\(" + re.escape(BASE) + r"[^)]*\)")
    return re.sub(r"^```.*?^```", lambda m: link.sub(r"\1", m[0]), text, flags=re.S | re.M)


def introduction(path: Path) -> str:
    "What a notebook's first cell says below title and promise: of that cell nbdev keeps these two."
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    text = re.sub(r"\A# .*\n+> .*", "", "".join(first["source"]))
    return NbdevLookup().linkify(text.strip()) or ""


def mend_notebook(path: Path, source: Path) -> str:
    "A processed notebook, as text, with all its words mended."
    nb = json.loads(path.read_text(encoding="utf-8"))
    intro = {"cell_type": "markdown", "metadata": {}, "source": introduction(source)}
    nb["cells"].insert(1, intro)  # cell 0 is the front matter: title and promise
    for cell in nb["cells"]:
        if cell["cell_type"] != "code":
            cell["source"] = mend_text("".join(cell["source"]))
        else:
            fold = '#| code-fold: show\n#| code-summary: "Exported source"'
            cell["source"] = "".join(cell["source"]).replace(
                fold, '#| code-fold: true\n#| code-summary: "Code"'
            )
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = mend_text(mend_signature("".join(data["text/markdown"])))
    return json.dumps(nb)


def plain_names(proc: Path) -> None:
    "Move every file to its plain name: notebooks mended, the pictures beside them as they are."
    files = [p for p in proc.rglob("*") if p.is_file()]
    names = [plain(p.relative_to(proc)) for p in files]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        sys.exit(f"two pages have one name without their numbers: {', '.join(sorted(twice))}")
    for path, name in zip(files, names, strict=True):
        if path.suffix == ".ipynb":
            text = mend_notebook(path, CFG.nbs_path / path.relative_to(proc))
            path.write_text(text, encoding="utf-8")
        target = proc / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for folder in sorted((p for p in proc.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    for config in (proc / "_quarto.yml", proc / "sidebar.yml"):
        text = re.sub(r"[\w/]+\.ipynb", lambda m: plain(m[0]), config.read_text(encoding="utf-8"))
        config.write_text(text, encoding="utf-8")


# --- after smalldocs: a site that needs no network


def copy_katex(site: Path) -> bool:
    "Put KaTeX into the site, if npm has fetched it: formulas then need no network."
    if not KATEX.exists():
        print("no node_modules/katex: the site takes its formulas' fonts and script from a CDN")
        return False
    target = site / "site_libs" / "katex"
    for name in ("katex.min.css", "katex.min.js", "contrib/auto-render.min.js"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(KATEX / name, target / name)
    older = shutil.ignore_patterns("*.ttf", "*.woff")
    shutil.copytree(KATEX / "fonts", target / "fonts", ignore=older, dirs_exist_ok=True)
    return True


def localise(site: Path) -> None:
    "Links to the site become relative, KaTeX its own copy; no page asks for a web font."
    katex = copy_katex(site)
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = page.read_text(encoding="utf-8")
        text = re.sub(r'(<a [^>]*href=")' + re.escape(BASE), rf"\g<1>{up}", text)
        if katex:
            text = text.replace(KATEX_CDN, up + "site_libs/katex")
        page.write_text(text, encoding="utf-8")
    # up to the bracket, not to the semicolon: the address itself holds semicolons
    web_font = re.compile(r"@import\s*url\([^)]*fonts\.googleapis[^)]*\);?")
    for style in (site / "site_libs").rglob("*.css"):
        style.write_text(web_font.sub("", style.read_text(encoding="utf-8")), encoding="utf-8")


def build() -> None:
    "Process, rename, render, localise; the finished site replaces the one before."
    refresh_quarto_yml()
    write_sidebar()
    proc = process()
    plain_names(proc)
    smalldocs = Path(sys.executable).with_name("smalldocs")
    subprocess.run([smalldocs, "render", proc], check=True)
    site = proc / CFG.doc_path.name
    localise(site)
    shutil.rmtree(CFG.doc_path, ignore_errors=True)
    shutil.move(site, CFG.doc_path)


if __name__ == "__main__":
    if "--sidebar" in sys.argv:
        write_sidebar()
    else:
        build()
        gc.freeze()  # at the end each notebook's IPython collects garbage, over all there is
