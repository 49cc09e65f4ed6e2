"""Boxes and sizes in the orders of several protocols: plain loops, keys of the cache, bad boxes."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from imret.core import ImageError, ImretError, l2_normalize
from imret.features import combine_scales, describe, extract, extract_multiscale, frame_image
from imret.features.cache import VectorCache, image_key
from imret.features.images import CROPS
from imret.nets import create_embedder

pytestmark = pytest.mark.usefixtures("one_thread")

CAT, CUP = data.chelsea(), data.coffee()  # 451 x 300 and 600 x 400
BOX = (130.4, 69.6, 231, 150)
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create_embedder("resnet18-gem", pretrained=False)


def plain(pixels, box, size, crop, resize):
    "By Pillow, a step at a time."
    image = Image.fromarray(pixels)
    w, h = image.size

    def fit(w, h):
        if resize == "square":
            return size, size
        return round(w * size / max(w, h)), round(h * size / max(w, h))

    if crop == "none":
        return image.resize(fit(w, h), Image.BICUBIC)
    x1, y1, x2, y2 = (min(max(o, 0), n) for o, n in zip(box, (w, h, w, h), strict=True))
    part = image.crop((round(x1), round(y1), round(x2), round(y2)))
    if crop == "before":
        return part.resize(fit(*part.size), Image.BICUBIC)
    if crop == "same_scale":
        fx, fy = (size / w, size / h) if resize == "square" else (size / max(w, h),) * 2
        new = max(round(part.width * fx), 1), max(round(part.height * fy), 1)
        return part.resize(new, Image.BICUBIC)
    nw, nh = fit(w, h)
    x1, x2, y1, y2 = x1 * nw / w, x2 * nw / w, y1 * nh / h, y2 * nh / h
    return image.resize((nw, nh), Image.BICUBIC).crop(tuple(map(round, (x1, y1, x2, y2))))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-20, 300),
    st.floats(-20, 200),
    st.floats(12, 400),
    st.floats(12, 300),
    st.integers(64, 500),
    st.sampled_from(CROPS),
    st.sampled_from(["long", "square"]),
)
def test_each_order_equals_pillow(x, y, w, h, size, crop, resize):
    box = (x, y, x + w, y + h)
    try:
        wanted = np.asarray(plain(CAT, box, size, crop, resize))
    except ValueError:  # Pillow finds nothing to resize
        return
    if not wanted.size:
        return
    ours = frame_image(CAT, box, size, 1, crop, resize)
    assert ours.shape == wanted.shape
    off = np.abs(ours.astype(int) - wanted)
    assert off.max() <= 2 and off.mean() < 0.5


@pytest.mark.parametrize("resize", ["long", "square"])
@pytest.mark.parametrize("crop", CROPS)
def test_extract_sees_what_the_plain_loop_sees(net, crop, resize):
    images, boxes = [CAT, CUP, CAT, CUP], [BOX, None, None, (100, 50, 400, 390)]
    wanted = []
    for pixels, box in zip(images, boxes, strict=True):
        order = "none" if box is None else crop
        seen = torch.from_numpy(np.array(plain(pixels, box, 224, order, resize)))[None]
        with torch.inference_mode():
            wanted.append(net(net.preprocess(seen))[0].numpy())
    way = {"crop": crop, "resize": resize, **QUIET}
    ours = extract(net, images, boxes, 224, **way)
    assert (ours * wanted).sum(axis=1).min() > 0.9995  # Pillow rounds otherwise
    for batch_size in (1, 3):
        mixed = extract(net, images[::-1], boxes[::-1], 224, batch_size=batch_size, **way)
        assert np.abs(mixed[::-1] - ours).max() < 1e-5


@pytest.mark.parametrize("crop", CROPS)
def test_scales_of_an_order_are_its_sizes(net, crop):
    way = {"crop": crop, **QUIET}
    each = [extract(net, [CAT], [BOX], s, **way) for s in (128, 192)]
    both = extract(net, [CAT], [BOX], 128, (1, 1.5), **way)
    assert np.allclose(both, l2_normalize(sum(each)), atol=1e-5)
    named = extract_multiscale(net, [CAT], [BOX], 128, (1, 1.5), 2.0, **way)
    assert np.allclose(named, combine_scales(np.stack(each), 2.0), atol=1e-5)


@pytest.mark.parametrize("resize", ["long", "square"])
@pytest.mark.parametrize("crop", CROPS)
def test_the_mirror_image_of_a_box(net, crop, resize):
    "A box in a mirrored photo stands elsewhere; together with its mirror image nothing changes."
    way = {"scales": "one", "flip": True, "crop": crop, "resize": resize, **QUIET}
    box, other = (130, 70, 230, 150), (451 - 230, 70, 451 - 130, 150)
    both = extract_multiscale(net, [CAT, CAT[:, ::-1]], [box, other], 160, **way)
    assert np.allclose(both[0], both[1], atol=1e-5)
    one = {**way, "flip": False}
    each = extract_multiscale(net, [CAT, CAT[:, ::-1]], [box, other], 160, **one)
    assert np.allclose(both[0], l2_normalize(each.sum(axis=0)), atol=1e-5)


def test_describe_is_one_of_two(net):
    how = {"image_size": 96, **QUIET}
    plain_way = describe(net, [CAT], [BOX], scales=(1, 0.7071), **how)
    assert np.array_equal(plain_way, extract(net, [CAT], [BOX], scales=(1, 0.7071), **how))
    for more in ({"scales": "three"}, {"scales": (1, 0.5), "power": None}, {"flip": True}):
        ours = describe(net, [CAT], [BOX], **more, **how)
        wanted = extract_multiscale(net, [CAT], [BOX], **{"scales": (1,), **more}, **how)
        assert np.array_equal(ours, wanted)


# Small things


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("box", [(450, 299, 451, 300), (0, 0, 1, 300), (5.5, 5.5, 7, 7)])
def test_a_box_of_a_few_pixels_is_stretched_to_the_stride(net, crop, box):
    seen = frame_image(CAT, box, 64, 0.5, crop, min_side=net.stride)
    assert min(seen.shape[:2]) == net.stride
    assert np.allclose(np.linalg.norm(extract(net, [CAT], [box], 32, crop=crop, **QUIET)), 1)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (20, 20)])
def test_images_smaller_than_the_stride(net, crop, shape):
    image = np.full((*shape, 3), 99, np.uint8)
    whole = (0, 0, shape[1], shape[0])
    for size, resize in ((64, "long"), (64, "square"), (8, "square"), (None, "long")):
        seen = frame_image(image, whole, size, 1, crop, resize, min_side=net.stride)
        assert min(seen.shape[:2]) >= net.stride and (seen == 99).all()


@pytest.mark.parametrize("crop", ["before", "after", "same_scale"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "box, said",
    [
        ((900, 0, 950, 9), "holds no pixel of its 451 x 300"),
        ((-50, -50, -1, -1), "holds no pixel"),
        ((30, 30, 30, 90), "holds no pixel"),
        ((90, 90, 30, 30), "holds no pixel"),
        ((0, 0, 9), "four numbers"),
        ((0, 0, 9, np.nan), "four numbers"),
    ],
)
def test_boxes_that_are_none(net, crop, flip, box, said):
    with pytest.raises(ImageError, match=said):
        describe(net, [CAT], [box], 64, flip=flip, crop=crop, **QUIET)
    errors = []
    how = {"on_error": "skip", "errors": errors, "crop": crop, **QUIET}
    rows = describe(net, [CAT, CUP], [box, None], 64, flip=flip, **how)
    assert np.isnan(rows[0]).all() and np.isfinite(rows[1]).all()
    assert [i for i, _ in errors] == [0]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"crop": "first"}, "unknown crop 'first': known are after, before, none, same_scale"),
        ({"crop": None}, "unknown crop None"),
        ({"resize": "short"}, "unknown resize 'short': known are long, square"),
        ({"resize": "square", "image_size": None}, "needs an image_size"),
    ],
)
def test_options_that_are_none(net, wrong, said):
    with pytest.raises(ImretError, match=said):
        extract(net, ["not even looked at"], **wrong)


# Keys


def test_keys_of_what_was_there_stay():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for box, text in ((None, "None"), ((0, 0, 1, 1), "(0.0, 0.0, 1.0, 1.0)")):
        old = hashlib.sha256(pixels.tobytes() + f"(2, 4, 3) uint8 {text}".encode())
        assert image_key(pixels, box) == old.hexdigest()[:32].encode()
    keys = {image_key(pixels, (0, 0, 1, 1), crop) for crop in CROPS}
    assert len(keys) == 4 and image_key(pixels) in keys
    assert len({image_key(pixels, None, crop) for crop in CROPS}) == 1


def test_each_order_has_vectors_of_its_own(net, tmp_path):
    def extracted(**way):
        return extract(net, [CAT, CUP], [BOX, None], 64, cache_dir=tmp_path, **way, **QUIET)

    ways = [{"crop": c, "resize": r} for c in CROPS for r in ("long", "square")]
    fresh = [extract(net, [CAT, CUP], [BOX, None], 64, **way, **QUIET) for way in ways]
    for _ in range(2):  # the second time from the cache
        for way, wanted in zip(ways, fresh, strict=True):
            assert np.allclose(extracted(**way), wanted, atol=1e-5)
    kept = VectorCache(tmp_path, net.fingerprint(), "64 [1.0] torch.float32", net.dim)
    assert len(kept.where) == 5  # the cat in four ways, the cup in one
    kept = VectorCache(tmp_path, net.fingerprint(), "64 [1.0] torch.float32 square", net.dim)
    assert len(kept.where) == 5
