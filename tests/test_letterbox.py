"""Letterboxes against a plain construction; matrices that are killed, damaged, asked for twice."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from imret.core import DatasetError, ImageError
from imret.datasets.letterbox import (
    FILLS,
    ImageMatrix,
    letterbox,
    open_image_matrix,
    write_image_matrix,
)

sides = st.integers(1, 90)


def noise(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


# ---- letterbox


@settings(max_examples=60, deadline=None)
@given(h=sides, w=sides, size=st.integers(1, 70), fill=st.sampled_from(FILLS), old=st.booleans())
@example(h=1, w=90, size=33, fill="blur", old=False)
@example(h=89, w=90, size=1, fill="blur", old=True)
def test_letterbox(h, w, size, fill, old):
    "The shrunk picture in the middle; nothing but the fill beside it; the same when turned."
    image = noise(h, w)
    out = letterbox(image, size, fill, old)
    assert out.shape == (size, size, 3) and out.dtype == np.uint8 and out.flags.c_contiguous
    turned = letterbox(np.ascontiguousarray(image.swapaxes(0, 1)), size, fill, old)
    assert h == w or np.array_equal(out, turned.swapaxes(0, 1))  # Pillow rounds by order
    if h > w:
        image, out = image.swapaxes(0, 1), out.swapaxes(0, 1)
    short = max(round(size * min(h, w) / max(h, w)), 1)
    small = Image.fromarray(image).resize((size, short), Image.Resampling.BILINEAR)
    before = (size - short) // 2
    assert np.array_equal(out[before : before + short], np.asarray(small))
    beside = np.concatenate([out[:before], out[before + short :]])
    if fill != "blur":
        values = {0} if fill == "black" else {225, 0} if old else {255}
        assert set(np.unique(beside)) <= values
    if old and (size - short) % 2:
        assert out[-1].max() == 0
    elif len(beside) and fill == "white":
        assert beside.min() == (225 if old else 255)


@pytest.mark.parametrize("h, w", [(30, 60), (33, 60), (59, 60), (19, 60), (6, 60), (1, 60)])
def test_blurred_bands(h, w):
    "Each band is the strip that touches it, or the whole picture where that is too narrow."
    image = noise(h, w)
    out = letterbox(image, 60)
    before = (60 - h) // 2
    after = 60 - h - before
    assert np.array_equal(out[before : before + h], image)
    for rows, band, strip in (
        (before, out[:before], image[:before]),
        (after, out[before + h :], image[h - after :]),
    ):
        if rows > h:
            strip = cv2.resize(image, (60, rows))
        if rows:
            assert np.array_equal(band, cv2.GaussianBlur(strip, (7, 7), 1000))
            wide = np.pad(
                strip.astype(float), ((3, 3), (3, 3), (0, 0)), "reflect" if rows > 3 else "edge"
            )
            means = np.lib.stride_tricks.sliding_window_view(wide, (7, 7), (0, 1)).mean((-2, -1))
            if rows > 3:
                assert np.abs(means - band).max() <= 2  # fixed point


def test_letterbox_refuses():
    for bad in (noise(4, 4)[..., 0], noise(4, 4) / 255, noise(0, 4), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ImageError, match=r"an image is \(H, W, 3\) uint8"):
            letterbox(bad)
    with pytest.raises(DatasetError, match="fill='grey' is not one of blur, black, white"):
        letterbox(noise(4, 4), fill="grey")
    with pytest.raises(DatasetError, match="size=0 below 1"):
        letterbox(noise(4, 4), 0)


# ---- the matrix


@pytest.fixture
def files(tmp_path):
    "Eleven pictures of several kinds and names; number 3 is broken, 7 is not there."
    names = "a.jpg|b c.png|塔 ü.png|broken.jpg|grey.png|clear.png|black.png|none.jpg|link.jpg"
    paths = [tmp_path / "pictures" / name for name in f"{names}|turned.jpg".split("|")]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        if path.stem not in ("none", "link"):
            Image.fromarray(noise(40 + 7 * i, 60, i)).save(path)
    paths[3].write_bytes(paths[0].read_bytes()[:700])
    Image.fromarray(noise(40, 50)[..., 0]).save(paths[4])
    Image.fromarray(noise(40, 50)).convert("RGBA").save(paths[5])
    Image.fromarray(noise(40, 50) * 0).save(paths[6])
    paths[8].symlink_to(paths[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(40, 60)).save(paths[9], exif=exif)
    return [*paths, paths[0]]


def write(files, file, **options):
    return write_image_matrix(files, file, **{"size": 32, "n_jobs": 1, "block": 4} | options)


def test_rows(files, tmp_path):
    matrix = write(files, tmp_path / "new folder" / "塔 1.npy")
    assert matrix.pixels.shape == (11, 3, 32, 32) and len(matrix) == 11
    assert matrix.images == files and list(matrix.broken) == [3, 7]
    assert "No such file" in matrix.broken[7]
    for i, path in enumerate(files):
        if i in matrix.broken:
            assert matrix.pixels[i].max() == 0
        elif i != 9:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert np.array_equal(matrix.pixels[i], letterbox(pixels, 32).transpose(2, 0, 1))
    assert np.array_equal(matrix.pixels[0], matrix.pixels[8])
    assert matrix.pixels[9, 0, :, 0].max() > 0  # turned upright: bands left and right
    with pytest.raises(ValueError, match="read-only"):
        matrix.pixels[0] = 1
    plain = np.load(matrix.file, mmap_mode="r")
    assert plain.shape == matrix.pixels.shape and matrix.file.stat().st_size == 128 + plain.nbytes
    again = pickle.loads(pickle.dumps(matrix))
    assert isinstance(again, ImageMatrix) and isinstance(again.pixels, np.memmap)
    assert sorted(p.name for p in matrix.file.parent.iterdir()) == ["塔 1.npy", "塔 1.npy.jsonl"]


@pytest.mark.parametrize("options", [{"n_jobs": 2}, {"block": 1}, {"block": 100}])
def test_jobs_and_blocks_change_nothing(files, tmp_path, options):
    one, other = write(files, tmp_path / "1.npy"), write(files, tmp_path / "2.npy", **options)
    assert np.array_equal(one.pixels, other.pixels) and one.broken == other.broken


SLOW = """
import sys, time
import imret.datasets.letterbox
box = sys.modules["imret.datasets.letterbox"]
read = box._read_picture
box._read_picture = lambda path: time.sleep(0.05) or read(path)
box.write_image_matrix(sys.argv[2:], sys.argv[1], size=32, n_jobs=1, block=2)
"""


def test_killed(files, tmp_path):
    file, log = tmp_path / "m.npy", tmp_path / "m.npy.jsonl"
    files = [str(p) for p in files]
    child = subprocess.Popen([sys.executable, "-c", SLOW, str(file), *files])
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().count('"block": 1')):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with pytest.raises(DatasetError, match="not finished: write_image_matrix .* goes on"):
        open_image_matrix(file)
    os.unlink(files[1])  # in a block that is done
    went_on = write(files, file, block=2)
    assert went_on.broken.keys() == {3, 7}
    Image.fromarray(noise(47, 60, 1)).save(files[1])
    assert np.array_equal(went_on.pixels, write(files, tmp_path / "2.npy", block=2).pixels)


def test_again(files, tmp_path):
    file = tmp_path / "m.npy"
    write(files, file)
    stamp = file.stat().st_mtime_ns
    write(files, file)
    assert file.stat().st_mtime_ns == stamp
    for change in ({"size": 16}, {"fill": "white"}, {"as_original": True}, {"block": 5}):
        with pytest.raises(DatasetError, match=f"was begun with other {next(iter(change))}: give"):
            write(files, file, **change)
    with pytest.raises(DatasetError, match="was begun with other images: give"):
        write(files[::-1], file)
    for change in ({"size": 0}, {"block": 0}, {"fill": "grey"}):
        with pytest.raises(DatasetError, match="give at least one image, a fill of"):
            write(files, tmp_path / "2.npy", **change)
    with pytest.raises(DatasetError, match="0 images, .*give at least one image"):
        write([], tmp_path / "2.npy")


def test_damaged(files, tmp_path):
    file, log = tmp_path / "m.npy", tmp_path / "m.npy.jsonl"
    write(files, file)
    lines, data = log.read_text(), file.read_bytes()
    for text in (
        "",
        "nothing",
        '{"kind": "image matrix"}',
        '{"kind": "song"}\n',
        lines + '{"a": 1}\n',
    ):
        log.write_text(text)
        with pytest.raises(DatasetError, match="m.npy.jsonl is no log of an image matrix: remove"):
            open_image_matrix(file)
    log.write_text(lines)
    file.write_bytes(data[:-100])
    with pytest.raises(DatasetError, match="cannot be opened, or are not finished"):
        open_image_matrix(file)
    np.save(file, np.zeros((11, 3, 32, 31), np.uint8))
    with pytest.raises(DatasetError, match=r"holds \(11, 3, 32, 31\) uint8, its log speaks of"):
        open_image_matrix(file)
    log.unlink()
    with pytest.raises(DatasetError, match="is there without its log"):
        write(files, file)
    with pytest.raises(DatasetError, match="cannot be opened"):
        open_image_matrix(file)
    file.write_bytes(pickle.dumps(files))
    with pytest.raises(DatasetError, match="cannot be opened"):
        open_image_matrix(file)


def test_no_room(files, tmp_path, monkeypatch):
    disk = namedtuple("usage", "total used free")(10**6, 10**6 - 5000, 5000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: disk)
    with pytest.raises(DatasetError, match="m.npy.part needs 33,792 bytes, of which .* has 5,000"):
        write(files, tmp_path / "m.npy")
    assert [p.name for p in Path(tmp_path).iterdir()] == ["pictures"]
