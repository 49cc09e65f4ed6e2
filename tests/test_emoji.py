"""The emoji: faults of npm and of the disk on four small packages, and the set as it was built."""

import base64
import errno
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tarfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from imret.core import DatasetError
from imret.datasets import emoji, get_dataset, load_dataset, read_emoji
from imret.datasets.emoji import (
    ALIKE,
    SIZE,
    icon_svg,
    list_checksum,
    load_emoji,
    make_emoji,
    match_glyphs,
    npm_pack,
    read_member,
    render_svg,
)

# --- four small packages and an npm that knows only them

GLYPHS = {f"shape {i}": f"1F60{i}" for i in range(6)}
NPM = """#!{python}
import os, shutil, sys
if os.environ.get("NPM_SAYS"):
    sys.exit(os.environ["NPM_SAYS"])
for file in os.listdir({store!r}):
    shutil.copy(os.path.join({store!r}, file), file)
"""


def pack(files: dict) -> bytes:
    "An npm archive."
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(raw := json.dumps(content).encode())
            tar.addfile(member, io.BytesIO(raw))
    return data.getvalue()


def pin(monkeypatch, store, vendor, data):
    "Publish a package and pin what was published."
    sum_ = f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"
    old = emoji.UNICODE if vendor == "unicode" else emoji.VENDORS[vendor]
    package = replace(old, integrity=sum_)
    (store / package.file).write_bytes(data)
    if vendor == "unicode":
        monkeypatch.setattr(emoji, "UNICODE", package)
    else:
        monkeypatch.setitem(emoji.VENDORS, vendor, package)


@pytest.fixture
def store(tmp_path, monkeypatch):
    "The registry's folder; `npm pack` copies from it."
    store = tmp_path / "registry"
    store.mkdir()
    colours = dict(zip(emoji.VENDORS, ("red", "green", "blue", "black"), strict=True))
    for vendor, colour in colours.items():
        icons = {
            name.replace(" ", "-"): {"body": f'<circle cx="8" cy="8" r="{i + 2}" fill="{colour}"/>'}
            for i, name in enumerate(GLYPHS)
        }
        codes = {c.lower(): name.replace(" ", "-") for name, c in GLYPHS.items()}
        chars = {} if vendor == "emojione" else codes
        pin(monkeypatch, store, vendor, pack({"icons.json": {"icons": icons}, "chars.json": chars}))
    unicode = [
        {"codes": c, "name": name, "group": "Shapes", "subgroup": f"round {i % 2}"}
        for i, (name, c) in enumerate(GLYPHS.items())
    ]
    pin(monkeypatch, store, "unicode", pack({"emoji.json": unicode}))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "npm").write_text(NPM.format(python=sys.executable, store=str(store)))
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(emoji, "CHECKSUM", "7aa8803763722965")
    monkeypatch.setattr(emoji, "CARD", replace(emoji.CARD, counts={"glyphs": 6, "images": 24}))
    return store


@pytest.fixture
def made(store, tmp_path):
    "A root with the small set in it."
    make_emoji(tmp_path / "data", progress=False, n_jobs=1)
    return tmp_path / "data"


def test_small_set(made):
    data = load_emoji(made, split="all")
    assert len(data.images) == len(data.queries) == 24
    assert [len(ids) for ids in data.truth.easy] == [3] * 24
    assert [ids.tolist() for ids in data.truth.junk] == [[q] for q in range(24)]
    by_subgroup = load_emoji(made, split="all", label="subgroup")
    assert by_subgroup.truth.group_names == ["round 0", "round 1"]
    assert [len(ids) for ids in by_subgroup.truth.easy] == [11] * 24
    assert emoji.check_emoji(made).startswith("6 glyphs, 24 images")
    notice = (made / "emoji-v1" / "NOTICE.txt").read_text()
    assert all(word in notice for word in ("Apache-2.0", "CC-BY-4.0", "MIT", "Unicode License"))


# --- npm


def test_npm_is_missing(store, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatasetError, match="npm is not on PATH: install Node.js"):
        load_emoji(tmp_path / "data")


@pytest.mark.parametrize(
    "says, meaning",
    [
        ("npm error code ENOTFOUND\nnpm error request failed", r"cannot be reached \(ENOTFOUND\)"),
        ("npm ERR! code ETIMEDOUT", r"cannot be reached \(ETIMEDOUT\)"),
        ("ERROR: npm v11 is known not to run: npm does not support Node.js v14", "install Node.js"),
        ("SyntaxError: Unexpected token '.'", "install Node.js"),
        ("npm error code E404\nnpm error 404 Not Found - GET x", "npm pack failed: 404 Not Found"),
        ("something else", "npm pack failed: something else"),
    ],
)
def test_npm_fails(store, monkeypatch, tmp_path, says, meaning):
    monkeypatch.setenv("NPM_SAYS", says)
    with pytest.raises(DatasetError, match=meaning):
        load_emoji(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_npm_writes_nothing(store, tmp_path):
    (store / emoji.VENDORS["fluent"].file).unlink()
    with pytest.raises(DatasetError, match="npm pack wrote no iconify-json-fluent"):
        load_emoji(tmp_path / "data")


def test_wrong_integrity(store, tmp_path):
    file = store / emoji.VENDORS["twemoji"].file
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DatasetError, match=r"twemoji-1.2.5.tgz has integrity .* not sha512-"):
        load_emoji(tmp_path / "data")


@pytest.mark.parametrize("damage", [lambda d: d[:-40], lambda d: d[100:], lambda d: b"", None])
def test_damaged_archive(store, monkeypatch, tmp_path, damage):
    data = (store / emoji.VENDORS["noto"].file).read_bytes()
    pin(monkeypatch, store, "noto", damage(data) if damage else pack({"other.json": {}}))
    with pytest.raises(DatasetError, match="icons.json of a package cannot be read"):
        load_emoji(tmp_path / "data")


def test_another_list_is_refused_before_anything_is_rendered(store, monkeypatch, tmp_path):
    monkeypatch.setattr(emoji, "CHECKSUM", "0" * 16)
    with pytest.raises(DatasetError, match="list of 24 pictures with checksum"):
        load_emoji(tmp_path / "data")
    assert not (tmp_path / "data").exists()


# --- the disk


def test_goes_on_where_it_broke_off(store, monkeypatch, tmp_path):
    drawn = []

    def draw(svg, most):
        if len(drawn) == most:
            raise KeyboardInterrupt
        drawn.append(svg)
        return render_svg(svg)

    monkeypatch.setattr(emoji, "render_svg", lambda svg: draw(svg, 10))
    with pytest.raises(KeyboardInterrupt):
        make_emoji(tmp_path, progress=False, n_jobs=1)
    assert len(list(tmp_path.rglob("*.webp"))) == 10
    assert not list(tmp_path.rglob("emoji.csv"))
    with pytest.raises(DatasetError, match="imret data get emoji"):
        read_emoji(tmp_path)
    monkeypatch.setattr(emoji, "render_svg", lambda svg: draw(svg, 24))
    make_emoji(tmp_path, progress=False, n_jobs=1)
    assert len(drawn) == 24 and "6 glyphs" in emoji.check_emoji(tmp_path)


def test_two_processes_at_once(store, tmp_path):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=make_emoji, args=(tmp_path, False, 1)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert "6 glyphs" in emoji.check_emoji(tmp_path)
    assert len(list((tmp_path / "emoji-v1").rglob("*.*"))) == 24 + 2  # nothing left beside


def test_root_that_cannot_be_written(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot make emoji in .*IMRET_DATA"):
        load_emoji(tmp_path / "file")


def test_disk_full(store, monkeypatch, tmp_path):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DatasetError, match="No space left on device"):
        make_emoji(tmp_path, progress=False, n_jobs=1)
    assert not [p for p in tmp_path.rglob("emoji-v1/*/*")]


def test_what_is_there_is_only_read(made, monkeypatch):
    monkeypatch.setattr(emoji, "_write", None)
    monkeypatch.setattr(emoji, "npm_pack", None)
    assert len(load_emoji(made, split="all").images) == 24
    assert get_dataset("emoji", made) == made / "emoji-v1"


def test_damaged_set(made):
    folder = made / "emoji-v1"
    (folder / "noto" / "shape-1.webp").write_bytes(b"")
    (folder / "fluent" / "shape-2.webp").unlink()
    with pytest.raises(DatasetError, match=r"2 of 24 .* noto/shape-1.webp, fluent/shape-2.webp"):
        emoji.check_emoji(made)
    table = folder / "emoji.csv"
    text = table.read_text()
    for damaged in (text[:200], text.replace("test", "train", 1), "", "a,b\n"):
        table.write_text(damaged)
        with pytest.raises(DatasetError, match=r"emoji.csv .*delete it"):
            read_emoji(made)
    table.unlink()
    make_emoji(made, progress=False, n_jobs=1)
    shutil.rmtree(folder / "noto")
    with pytest.raises(DatasetError, match="missing"):
        load_emoji(made, split="all")


def test_unknown_names(made):
    for wrong in ({"split": "tset"}, {"label": "vendor"}):
        with pytest.raises(DatasetError, match="is not one of"):
            load_emoji(made, **wrong)
    with pytest.raises(DatasetError, match="is not one of glyph, subgroup, group"):
        read_emoji(made, "vendor")


# --- the rules of matching


def test_matching():
    icons = {"a": {"fox": {}, "cat-face": {}, "hand": {}, "new-moon": {}}}
    icons["b"] = {**icons["a"], "dog": {}}
    codes = {"a": {"1f98a": "fox", "1f431": "cat", "270b": "hand", "1f311": "new-moon"}, "b": {}}
    facts = {"group": "g", "subgroup": "s"}
    unicode = [
        {"codes": c, "name": n, **facts}
        for c, n in (
            ("1F98A FE0F", "Fox"),
            ("1F98A", "fox"),  # the same without the colour mark
            ("1F431", "cat face"),  # a's code points call it otherwise
            ("270B 1F3FB", "hand"),  # skin tone
            ("1F436", "dog"),  # not in a
            ("1F311", "new moon"),  # like another
        )
    ]
    table = match_glyphs(unicode, icons, codes)
    assert table.to_numpy().tolist() == [["fox", "1F98A", "g", "s"]]


def test_icons_keep_their_shape():
    icons = {"width": 32, "height": 16, "icons": {"x": {"body": "<path/>", "height": 8, "top": -4}}}
    assert 'viewBox="0 -4 32 8"' in icon_svg(icons, "x")


# --- the set as it was built


def test_the_set():
    load_dataset("emoji", progress=False)
    whole = read_emoji()
    table = whole.details
    assert list_checksum(table) == emoji.CHECKSUM and len(whole) == 4116
    of_glyph = table.groupby("glyph")
    assert (of_glyph["vendor"].nunique() == 4).all() and (of_glyph.size() == 4).all()
    assert (of_glyph["part"].nunique() == 1).all() and not ALIKE & set(table["glyph"])
    assert of_glyph["codes"].first().is_unique
    assert table["group"].nunique() == 8 and "Component" not in set(table["group"])
    share = table[table["part"] == "test"].groupby("group").size() / table.groupby("group").size()
    assert ((share >= 0.5) & (share < 0.52)).all()
    parts = [set(table["glyph"][whole.splits[p].query]) for p in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1029
    assert set(whole.splits["test"].train) == set(whole.splits["train"].query)
    by_group = load_dataset("emoji", label="group", split="validation")
    assert len(by_group.truth.group_names) == 8


def test_no_vendor_draws_two_alike():
    "Root mean square difference below 5 grey levels: small pictures differ at most as much."
    load_dataset("emoji", progress=False)
    whole = read_emoji()
    for vendor, rows in whole.details.groupby("vendor").groups.items():
        large = []
        for i in rows:
            with Image.open(whole.images[i]) as image:
                assert image.size == (SIZE, SIZE) and image.mode == "RGB"
                large.append(np.asarray(image))
        small = [
            cv2.resize(x.astype(np.float32), (16, 16), None, 0, 0, cv2.INTER_AREA) for x in large
        ]
        small = np.stack(small).reshape(len(large), -1)
        square = (small**2).sum(1)
        distance = (square[:, None] + square - 2 * small @ small.T) / small.shape[1]
        for a, b in zip(*np.nonzero(np.triu(distance < 26, 1)), strict=True):
            rms = np.sqrt(((large[a] - np.float32(large[b])) ** 2).mean())
            assert rms >= 5, (vendor, whole.images[rows[a]].name, whole.images[rows[b]].name)


@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
def test_the_four_left_out_are_alike():
    vendors = [emoji.VENDORS[v] for v in ("fluent", "emojione")]
    fluent, emojione = (read_member(a, "icons.json") for a in npm_pack(vendors))
    pairs = [(fluent, "black-medium-square", "white-square-button")]
    pairs.append((emojione, "new-moon", "black-circle"))
    for icons, *names in pairs:
        a, b = (
            np.asarray(Image.open(io.BytesIO(render_svg(icon_svg(icons, name)))), np.float32)
            for name in names
        )
        assert np.sqrt(((a - b) ** 2).mean()) < 5
    assert ALIKE == {name for _, *names in pairs for name in names}
