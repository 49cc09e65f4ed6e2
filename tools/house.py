"""Draw the house: which room of imret imports from which. `python tools/house.py [--check]`.

Reads the imports in `imret/`, writes the picture `nbs/images/house.svg` and the table of rooms in
CONTRIBUTING.md. `--check` changes nothing; it ends with 1 where the table is stale. The rule of the
house, that a room imports only from rooms above it, is checked by tests/test_rooms.py."""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "imret"
PICTURE = ROOT / "nbs" / "images" / "house.svg"
GUIDE = ROOT / "CONTRIBUTING.md"

# From the ground that all others stand on to the door. A new room gets its line here.
ROOMS = [
    "core",
    "names",
    "files",
    "datasets",
    "evaluation",
    "nets",
    "features",
    "codes",
    "search",
    "rerank",
    "compact",
    "retriever",
    "benchmark",
    "training",
    "explore",
    "engine",
    "ablation",
    "reproduce",
    "cli_data",
    "cli_options",
    "cli_eval",
    "cli_compare",
    "cli_ablate",
    "cli_train",
    "cli",
]

# --- reading


def room_of(path: Path) -> str:
    "`imret/datasets/base.py` is in the room datasets, `imret/core.py` in core."
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


def modules() -> list[Path]:
    "Every module of the library, but for imret/__init__.py and nbdev's index."
    found = sorted(LIBRARY.rglob("*.py"))
    return [p for p in found if room_of(p) not in ("__init__", "_modidx")]


def imported(path: Path) -> list[str]:
    "Full names of what a module imports, wherever in it: `imret.core.Ranking`, `numpy`."
    package = ("imret", *path.relative_to(LIBRARY).parent.parts)
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *filter(None, [node.module])])
            names += [f"{origin}.{alias.name}" for alias in node.names]
    return names


def house() -> dict[str, list[str]]:
    "For each room that stands, in order, the other rooms it imports from, in order."
    uses = defaultdict(set)
    for path in modules():
        room = room_of(path)
        found = {n.split(".")[1] for n in imported(path) if n.startswith("imret.")}
        uses[room] |= found - {room}

    def order(room: str) -> tuple[int, str]:
        return (ROOMS.index(room) if room in ROOMS else len(ROOMS), room)

    return {room: sorted(uses[room] & uses.keys(), key=order) for room in sorted(uses, key=order)}


def promise(room: str) -> str:
    "The first line of the room's docstring."
    path = LIBRARY / room / "__init__.py"
    path = path if path.exists() else LIBRARY / f"{room}.py"
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.split("\n")[0]


# --- writing


def table() -> str:
    "The rooms as a Markdown table."
    lines = ["| room | what it holds | imports from |", "| --- | --- | --- |"]
    for room, uses in house().items():
        lines.append(f"| `{room}` | {promise(room)} | {', '.join(uses) or '–'} |")
    return "\n".join(lines)


def guide() -> str:
    "CONTRIBUTING.md with the table as it is now."
    text = GUIDE.read_text(encoding="utf-8")
    new = f"<!-- rooms: written by tools/house.py -->\n{table()}\n<!-- end of rooms -->"
    return re.sub(r"<!-- rooms.*?<!-- end of rooms -->", lambda _: new, text, flags=re.S)


def draw() -> None:
    "Rooms from top to bottom; an arrow goes from a room up to the one it imports from."
    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    plt.rcParams.update({"svg.hashsalt": "imret", "svg.fonttype": "none", "font.size": 11})
    rooms = house()
    level = {room: -i for i, room in enumerate(rooms)}
    fig, ax = plt.subplots(figsize=(6.4, 0.5 * len(rooms) + 0.3), facecolor="white")
    colours = matplotlib.colormaps["viridis"].resampled(len(rooms) + 2)
    for i, (room, uses) in enumerate(rooms.items()):
        colour = colours(i)
        box = FancyBboxPatch(
            (-0.8, level[room] - 0.28),
            1.6,
            0.56,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=(*colour[:3], 0.18),
            edgecolor=colour,
        )
        ax.add_patch(box)
        ax.text(0, level[room], room, ha="center", va="center")
        for other in uses:
            side = -1 if other == "core" else 1  # all rooms stand on core: kept apart, at the left
            arrow = FancyArrowPatch(
                (side * 0.82, level[room]),
                (side * 0.82, level[other]),
                connectionstyle=f"arc3,rad={side * 0.45}",
                arrowstyle="-|>",
                mutation_scale=10,
                color="0.75" if other == "core" else colour,
            )
            ax.add_patch(arrow)
    reach = 0.8 + 0.27 * len(rooms)
    ax.set(xlim=(-reach, reach), ylim=(0.5 - len(rooms), 0.5))
    ax.axis("off")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(PICTURE, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(fig)


def main() -> None:
    if "--check" in sys.argv:
        if guide() != GUIDE.read_text(encoding="utf-8"):
            sys.exit("CONTRIBUTING.md: the table of rooms is stale, run `make fix`")
        return
    GUIDE.write_text(guide(), encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
