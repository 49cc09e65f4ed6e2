"""Write README.md from nbs/index.ipynb: `python tools/readme.py [--check]`.

GitHub shows Markdown and pictures, and runs nothing. So links to notebooks become links into the
repository, pictures that the notebook drew become files in figures/, and a widget is its picture,
or a link to the site. `--check` changes nothing; it ends with 1 where the README is stale."""

import base64
import re
import sys

from execnb.nbio import read_nb
from nbdev.config import get_config

CFG = get_config()
ROOT = CFG.config_path
SITE = f"{CFG.doc_host}{CFG.doc_baseurl}/"
NOTE = f"<!-- written by tools/readme.py from {CFG.nbs_path.name}/{CFG.readme_nb}: edit that -->"


def repo_links(text: str) -> str:
    "Relative links in a notebook below nbs/ become links from the top of the repository."

    def link(match: re.Match) -> str:
        target = match[1]
        return "](" + (target[3:] if target.startswith("../") else f"{CFG.nbs_path.name}/{target}")

    return re.sub(r"\]\((?![a-z]+:|#|/)([^)\s]+)", link, text)


def directive(source: str, key: str) -> str | None:
    "The value of `#| key: value`, or None."
    found = re.search(rf"^#\|\s*{key}:\s*(.+)$", source, re.M)
    return found[1].strip() if found else None


def hidden(source: str) -> bool:
    return bool(re.search(r"^#\|\s*(hide|include:\s*false)\s*$", source, re.M))


def block(text: str, language: str = "") -> str:
    body = text.strip("\n")
    return f"```{language}\n{body}\n```"


def output(data: dict, name: str, pictures: dict[str, bytes]) -> str | None:
    "One output as Markdown; its picture is added to `pictures`."
    if "text/markdown" in data:
        return repo_links("".join(data["text/markdown"]))
    if "image/png" in data:
        path = f"figures/{name}.png"
        pictures[path] = base64.b64decode("".join(data["image/png"]))
        return f"![{name.replace('-', ' ')}]({path})"
    if "imret-live" in "".join(data.get("text/html", "")):
        return f"*[Live on the site]({SITE})*"
    if "text/plain" in data:
        return block("".join(data["text/plain"]))
    return None


def code_cell(cell, pictures: dict[str, bytes]) -> list[str]:
    "The code, unless `#| echo: false`, and what it showed. `#| label: name` names its picture."
    source = "".join(cell.source)
    parts = []
    if directive(source, "echo") != "false":
        parts.append(block(re.sub(r"^#\|.*\n?", "", source, flags=re.M), "python"))
    name = directive(source, "label") or f"readme-{cell.id}"
    for out in cell.get("outputs", []):
        if out.output_type == "stream":
            parts.append(block("".join(out.text)) if out.name == "stdout" else None)
        else:
            parts.append(output(out.get("data", {}), name, pictures))
    return [p for p in parts if p]


def readme() -> tuple[str, dict[str, bytes]]:
    "The text of the README, and its pictures by their path in the repository."
    parts, pictures = [], {}
    for cell in read_nb(CFG.nbs_path / CFG.readme_nb).cells:
        source = "".join(cell.source)
        if hidden(source):
            continue
        if cell.cell_type == "markdown":
            parts.append(repo_links(source).strip())
        elif cell.cell_type == "code" and source.strip():
            parts += code_cell(cell, pictures)
    return "\n\n".join([parts[0], NOTE, *parts[1:]]) + "\n", pictures


def main() -> None:
    text, pictures = readme()
    files = {"README.md": text.encode(), **pictures}
    stale = [p for p, b in files.items() if not (ROOT / p).exists() or (ROOT / p).read_bytes() != b]
    if "--check" in sys.argv:
        if stale:
            sys.exit(f"{' '.join(stale)}: not what nbs/index.ipynb says, run `make fix`")
        return
    for path in stale:
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_bytes(files[path])


if __name__ == "__main__":
    main()
