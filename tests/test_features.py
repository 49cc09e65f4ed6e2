"""Features: pictures of every kind, the fast reader equal to Pillow, work that survives a kill."""

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data

from imret.core import ImageError, ImretError, l2_normalize
from imret.features import VectorCache, crop_image, decode_image, extract, read_image, resize_image
from imret.nets import create_embedder, inference_net

CAT = data.chelsea()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net():
    return create_embedder("efficientnet_lite0-gem")


@pytest.fixture(scope="module")
def random_net():
    torch.manual_seed(0)
    return create_embedder("resnet18-gem", pretrained=False)


def encoded(image: Image.Image, format: str, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


# Reading


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_every_exif_orientation(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(CAT[:90, :140]), format, exif=exif, quality=95)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    assert np.array_equal(read_image(file), np.asarray(wanted))


@pytest.mark.parametrize(
    "how",
    [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}, {"subsampling": 1}],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_equal_pillow(how, mode):
    file = encoded(Image.fromarray(CAT[:111, :77]).convert(mode), "JPEG", **how)
    wanted = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    assert np.array_equal(decode_image(file), wanted)


def test_every_mode():
    rgb = Image.fromarray(CAT)
    grey = np.asarray(rgb.convert("L"))
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(read_image(rgb.convert("L")), as_rgb)
    deep = encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG")
    assert np.array_equal(read_image(deep), as_rgb)
    deep = encoded(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF")
    assert np.array_equal(read_image(deep), as_rgb)
    floats = encoded(Image.fromarray(grey.astype(np.float32) / 255), "TIFF")
    assert np.array_equal(read_image(floats), as_rgb)
    palette = rgb.quantize(64)
    assert np.array_equal(read_image(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bits = rgb.convert("1")
    assert np.array_equal(read_image(encoded(bits, "PNG")), np.asarray(bits.convert("RGB")))
    cmyk = read_image(encoded(rgb.convert("CMYK"), "JPEG", quality=95)).astype(int)
    assert np.abs(cmyk - CAT).mean() < 4


def test_transparency_is_on_white():
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    half.putpixel((1, 0), (0, 0, 0, 0))
    white = [[[0, 0, 0], [255, 255, 255]]]
    assert read_image(encoded(half, "PNG")).tolist() == white
    assert read_image(encoded(half.convert("LA"), "PNG")).tolist() == white
    assert read_image(encoded(half, "GIF")).tolist() == white
    keyed = encoded(
        Image.fromarray(np.uint8([[[0, 0, 0], [9, 9, 9]]])), "PNG", transparency=(9, 9, 9)
    )
    assert read_image(keyed).tolist() == white


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        file = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert read_image(file).mean(axis=(0, 1)).argmax() == 0


def test_tiny_and_wide(net):
    dot, wide = np.full((1, 1, 3), 200, np.uint8), np.zeros((8, 20_000, 3), np.uint8)
    dot_file = encoded(Image.fromarray(dot), "JPEG")
    wide_file = encoded(Image.fromarray(wide), "JPEG")
    assert read_image(dot_file).shape == (1, 1, 3) and read_image(wide_file).shape == wide.shape
    vectors = extract(net, [dot_file, wide_file, dot, wide], image_size=64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


def png_of_size(w: int, h: int) -> bytes:
    "A PNG that claims a size and holds nothing."

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


def broken_files(folder) -> list:
    jpeg, png = (encoded(Image.fromarray(CAT), f) for f in ("JPEG", "PNG"))
    files = {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header_only.jpg": jpeg[:200],
        "truncated.png": png[: len(png) // 2],
        "text.jpg": b"Dear reader, this is no picture.\n" * 9,
        "empty.jpg": b"",
        "bomb.png": png_of_size(60_000, 60_000),
        "lies.png": png_of_size(600, 600),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    return [folder / name for name in [*files, "folder.jpg", "missing.jpg"]]


def test_broken_files_are_named(tmp_path):
    for file in broken_files(tmp_path):
        with pytest.raises(ImageError, match=file.name) as e:
            read_image(file)
        assert "\n" not in str(e.value)


JPEG = encoded(Image.fromarray(CAT[:64, :64]), "JPEG", exif=Image.Exif(), quality=60)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged metadata
@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(JPEG) - 1), st.binary(min_size=1, max_size=8), st.booleans())
def test_damaged_bytes_give_a_picture_or_an_image_error(at, junk, cut):
    damaged = JPEG[:at] + junk + (b"" if cut else JPEG[at + len(junk) :])
    try:
        pixels = decode_image(damaged)
    except ImageError:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


@pytest.mark.parametrize(
    "source, said",
    [
        (np.zeros((3, 4, 5), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.full((3, 4), 1.5), "0..1"),
        (np.full((3, 4), np.nan), "0..1"),
        (np.zeros((3, 4), np.int64), "int64"),
        (7, "not 7"),
    ],
)
def test_things_that_are_no_images(source, said):
    with pytest.raises(ImageError, match=said):
        read_image(source)


# Boxes and sizes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 600), min_size=4, max_size=4))
def test_boxes_equal_pillow_inside_the_picture(box):
    x1, y1, x2, y2 = (round(o) for o in box)
    x1, x2 = (min(max(o, 0), 451) for o in (x1, x2))
    y1, y2 = (min(max(o, 0), 300) for o in (y1, y2))
    if x2 > x1 and y2 > y1:
        wanted = np.asarray(Image.fromarray(CAT).crop((x1, y1, x2, y2)))
        assert np.array_equal(crop_image(CAT, box), wanted)
    else:
        with pytest.raises(ImageError, match="cat.jpg"):
            crop_image(CAT, box, "cat.jpg")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 451), st.integers(1, 500))
def test_resizing_equals_pillow_to_rounding(h, w, size):
    picture = CAT[:h, :w]
    out = resize_image(picture, size)
    assert max(out.shape[:2]) == size
    wanted = np.asarray(Image.fromarray(picture).resize(out.shape[1::-1], Image.Resampling.BICUBIC))
    off = np.abs(out.astype(int) - wanted)
    assert off.max() <= 2 and off.mean() < 0.5


def test_box_is_cut_before_resizing(net):
    box = (110, 60, 330, 270)
    cut = extract(net, [CAT[60:270, 110:330]])
    assert np.allclose(extract(net, [CAT], boxes=[box]), cut, atol=1e-6)


# Extract

NAMES = ["astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "clock", "grass", "page"]


@pytest.fixture(scope="module")
def photos():
    return [getattr(data, n)() for n in NAMES]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_batch_and_company_change_nothing(random_net, photos, threads):
    before = torch.get_num_threads()
    wanted = []
    for photo in photos:
        x = torch.from_numpy(resize_image(read_image(photo), 128, "bicubic", 32))[None]
        with torch.inference_mode():
            wanted.append(random_net(random_net.preprocess(x))[0].numpy())
    order = np.random.default_rng(threads).permutation(len(photos))
    torch.set_num_threads(threads)
    try:
        for batch_size in (None, 1, 3):
            mixed = extract(random_net, [photos[i] for i in order], None, 128, (1,), batch_size)
            assert np.abs(mixed - np.array(wanted)[order]).max() < 1e-5
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_one_scale_equals_many_averaged(random_net, photos):
    three = extract(random_net, photos, image_size=100, scales=(1, 0.7, 1.4))
    single = [extract(random_net, photos, image_size=s) for s in (100, 70, 140)]
    assert np.allclose(three, l2_normalize(sum(single)), atol=1e-5)


def test_native_size(random_net):
    assert np.allclose(
        extract(random_net, [CAT], image_size=None), extract(random_net, [CAT], image_size=451)
    )


def test_skipped_images_are_rows_of_nan_and_listed(net, tmp_path):
    bad = broken_files(tmp_path)
    good = tmp_path / "good.png"
    Image.fromarray(CAT).save(good)
    images = [good, *bad, CAT]
    errors, before = [], threading.active_count()
    vectors = extract(net, images, image_size=64, on_error="skip", errors=errors)
    assert np.isnan(vectors).all(axis=1).nonzero()[0].tolist() == list(range(1, len(bad) + 1))
    assert [i for i, _ in errors] == list(range(1, len(bad) + 1))
    assert all(f.name in str(e) for f, (_, e) in zip(bad, errors, strict=True))
    assert np.array_equal(vectors[0], vectors[-1])
    with pytest.warns(UserWarning, match=r"9 of 11 images skipped: .*truncated.jpg"):
        extract(net, images, image_size=64, on_error="skip")
    with pytest.raises(ImageError):
        extract(net, images, image_size=64)
    assert threading.active_count() == before


def test_everything_skipped_and_nothing_to_do(net):
    errors = []
    assert np.isnan(extract(net, ["nowhere.jpg"], on_error="skip", errors=errors)).all()
    assert len(errors) == 1
    assert extract(net, []).shape == (0, net.dim)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"on_error": "ignore"}, "'raise' or 'skip'"),
        ({"boxes": []}, "0 entries for 1"),
        ({"scales": ()}, "at least one scale"),
        ({"scales": (0,)}, "positive"),
        ({"image_size": -3}, "positive"),
        ({"batch_size": -1}, "positive"),
        ({"dtype": "int8"}, "float32, bfloat16"),
    ],
)
def test_wrong_arguments(net, wrong, said):
    with pytest.raises(ImretError, match=said):
        extract(net, [CAT], **wrong)


def test_few_loaded_pictures_wait(random_net, photos):
    from imret.features.extract import Workers

    shapes = [(20 + i, 30, 3) for i in range(60)]  # no two alike: no bucket ever fills
    most, loaded = 0, 0

    def load(i):
        nonlocal most, loaded
        loaded += 1
        most = max(most, loaded)
        return [np.zeros(shapes[i], np.uint8)]

    def embed(batch):
        nonlocal loaded
        loaded -= len(batch)
        return torch.zeros(len(batch), 4)

    limit = 10 * 30 * 50 * 3
    assert len(dict(Workers(60, load, embed, lambda s: 8, 2, 2, limit))) == 60
    assert most < 30


def test_a_bug_in_the_net_ends_the_work(random_net):
    class Broken(list):
        def __getitem__(self, i):
            raise ZeroDivisionError("a bug, and no bad image")

    with pytest.raises(ZeroDivisionError):
        extract(random_net, Broken([1, 2, 3]), on_error="skip")


def test_bfloat16_of_extract(random_net, photos):
    half = extract(random_net, photos, image_size=128, dtype="bfloat16")
    assert (half * extract(random_net, photos, image_size=128)).sum(axis=1).min() > 0.999


# Cache


def test_cache_knows_what_it_depends_on(net, random_net, tmp_path, monkeypatch):
    def seen(**how) -> int:
        "How many pictures go through the net."
        n = 0
        real = inference_net(how.pop("net", net)).__class__.forward

        def counting(self, pixels):
            nonlocal n
            n += len(pixels)
            return real(self, pixels)

        with monkeypatch.context() as m:
            m.setattr("imret.nets.inference.InferenceNet.forward", counting)
            extract(how.pop("used", net), [CAT, CAT[:200]], cache_dir=tmp_path, **how)
        return n

    small = {"image_size": 64}
    assert seen(**small) == 2
    assert seen(**small) == 0
    assert seen(image_size=96) == 2
    assert seen(scales=(1, 0.5), **small) == 4
    assert seen(boxes=[None, (0, 0, 50, 50)], **small) == 1
    assert seen(used=random_net, **small) == 2
    with torch.no_grad():
        net.pool.p.add_(1)
    assert seen(**small) == 2
    with torch.no_grad():
        net.pool.p.sub_(1)
    assert seen(**small) == 0


WORK = """
import sys, time
import numpy as np
import torch
from imret.features import extract
from imret.nets import create_embedder

class Slow:
    "Forty pictures, the later ones slow to reach."
    def __len__(self): return 40
    def __getitem__(self, i):
        time.sleep(float(sys.argv[2]))
        return np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)

torch.set_num_threads(1)
torch.manual_seed(0)
net = create_embedder("resnet18-gem", pretrained=False)
print("begun", flush=True)
np.save(sys.argv[3], extract(net, Slow(), image_size=32, cache_dir=sys.argv[1], batch_size=1))
"""


def work(cache, pause: float, out) -> subprocess.Popen:
    args = [sys.executable, "-c", WORK, str(cache), str(pause), str(out)]
    return subprocess.Popen(args, stdout=subprocess.PIPE, text=True)


def test_killed_work_resumes(tmp_path):
    cache = tmp_path / "cache"
    first = work(cache, 0.2, tmp_path / "first.npy")
    deadline = time.time() + 120
    while not list(cache.glob("*/*.npy")) and time.time() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "first.npy").exists()
    torch.manual_seed(0)
    net = create_embedder("resnet18-gem", pretrained=False)
    kept = VectorCache(cache, net.fingerprint(), "32 [1.0] torch.float32", 512)
    assert 0 < len(kept.where) < 40
    next(cache.glob("*/*.npy")).with_name("torn.npy").write_bytes(b"\x93NUMPY\x01")
    (kept.folder / "left.tmp").write_bytes(b"half")

    two = [work(cache, 0, tmp_path / f"{name}.npy") for name in ("a", "b")]  # share the rest
    assert [p.wait() for p in two] == [0, 0]
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert np.array_equal(a, b) and np.isfinite(a).all()
    pictures = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8) for i in range(40)]
    assert np.abs(extract(net, pictures, image_size=32) - a).max() < 1e-5
