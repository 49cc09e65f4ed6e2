"""Several stages in one vector: against one pass a stage, plain loops, threads, and bad input."""

import threading

import numpy as np
import pytest
import torch

from imret.core import ImretError, SpecError
from imret.features import extract
from imret.nets import (
    StageMaps,
    StagePool,
    StageRegions,
    box_cells,
    create_embedder,
    inference_net,
    rmac_boxes,
)
from imret.nets.pooling import create_pooling

STAGES = (2, 4, "last")
RNG = np.random.default_rng(0)
PHOTOS = [
    np.kron(RNG.integers(0, 256, (*shape, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    for shape in ((6, 8), (5, 5), (12, 4), (6, 8), (3, 10))
]


@pytest.fixture(scope="module", params=["efficientnet_lite0-gem", "resnet18-gem"])
def net(request):
    torch.manual_seed(0)
    return create_embedder(request.param, pretrained=False)


@pytest.fixture(scope="module")
def lite():
    return create_embedder("efficientnet_lite0-gem")


def maps_of(net, photo, stages) -> list[np.ndarray]:
    "A stage at a time, without the fast form of the net."
    x = net.preprocess(torch.from_numpy(photo)[None])
    with torch.inference_mode():
        return [StageMaps(net.backbone, [s])(x)[0][0].numpy() for s in stages]


def unit(v: np.ndarray) -> np.ndarray:
    return v / max(np.sqrt((v * v).sum()), 1e-12)


@pytest.mark.parametrize("pooling", ["gem", "mac", "spoc", "rmac"])
def test_each_stage_is_as_if_pooled_alone(net, pooling):
    pool = StagePool(net, STAGES, pooling)
    found = pool.split(extract(pool, PHOTOS, image_size=None, progress=False))
    alone = create_pooling(pooling, dim=1)
    for i, photo in enumerate(PHOTOS):
        for stage, m in zip(STAGES, maps_of(net, photo, STAGES), strict=True):
            with torch.inference_mode():
                wanted = unit(alone(torch.from_numpy(m)[None])[0].numpy())
            assert np.abs(found[stage][i] - wanted).max() < 1e-4


def test_regions_by_plain_loops(net):
    pool = StageRegions(net, STAGES, most=20)
    found = pool.split(extract(pool, PHOTOS, image_size=None, progress=False))
    for i, photo in enumerate(PHOTOS):
        boxes = rmac_boxes(*photo.shape[:2], levels=2)
        strides = StageMaps(net.backbone, STAGES).strides
        for stage, m, stride in zip(STAGES, maps_of(net, photo, STAGES), strides, strict=True):
            rows = found[stage][i]
            cells = box_cells(boxes, stride, *m.shape[1:])
            for row, (x1, y1, x2, y2) in zip(rows, cells, strict=False):
                wanted = unit(m[:, y1 : y2 + 1, x1 : x2 + 1].max(axis=(1, 2)))
                assert np.abs(row - wanted).max() < 1e-4
            assert len(boxes) <= len(rows) and not rows[len(boxes) :].any()


def test_most_is_of_the_longest_picture(lite):
    for levels in (1, 2, 3):
        for whole in (False, True):
            room = StageRegions(lite, levels=levels, whole=whole).most
            lengths = range(32, 40 * 32, 32)
            counts = [len(rmac_boxes(32, length, levels)) + whole for length in lengths]
            assert room == max(counts)


def test_a_picture_with_too_many_regions(lite):
    pool = StageRegions(lite, (4, 5), most=8)
    with pytest.raises(ImretError, match="a picture of 64 x 192 has 14 regions: give most=14"):
        extract(pool, PHOTOS, image_size=None, progress=False)


def test_threads_hear_themselves_alone(lite):
    maps = StageMaps(lite.backbone, (2, 3, 4, 5, "last"))
    inputs = [torch.randn(1, 3, 32 * (2 + i % 3), 64, generator=None) for i in range(6)]
    with torch.inference_mode():
        wanted = [maps(x) for x in inputs]
    wrong = []

    def ask(i: int) -> None:
        for _ in range(8):
            with torch.inference_mode():
                found = maps(inputs[i])
            same = all(
                a.shape == b.shape and torch.allclose(a, b, atol=1e-5)
                for a, b in zip(found, wanted[i], strict=True)
            )
            if not same:
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert not any(m._forward_hooks for m in lite.backbone.modules())


def test_fast_form_gives_the_same(lite):
    pool = StagePool(lite, (2, 3, 4, 5, "last"), "mac")
    ready = inference_net(pool)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in ready.modules())
    pixels = torch.from_numpy(PHOTOS[0])[None]
    with torch.inference_mode():
        plain = pool(pool.preprocess(pixels))
    assert torch.allclose(ready(pixels), plain, atol=1e-4)


def test_fingerprints_differ_in_what_matters(lite):
    nets = [
        lite,
        StagePool(lite, (2, 3)),
        StagePool(lite, (3, 2)),
        StagePool(lite, (2, 3), "mac"),
        StagePool(lite, (2, 3), "gem", p=4),
        StageRegions(lite, (2, 3)),
        StageRegions(lite, (2, 3), most=11),
        StageRegions(lite, (2, 3), levels=3, most=11),
    ]
    assert len({n.fingerprint() for n in nets}) == len(nets)
    assert StagePool(lite, (2, 3)).fingerprint() == nets[1].fingerprint()


def test_cached_and_resumed(lite, tmp_path):
    pool = StageRegions(lite, (3, 4), most=17)
    given = {"image_size": None, "progress": False, "cache_dir": tmp_path}
    first = extract(pool, PHOTOS[:3], **given)
    assert np.array_equal(extract(pool, PHOTOS, **given)[:3], first)


def test_a_skipped_picture_is_nan_in_every_stage(lite, tmp_path):
    (tmp_path / "no.jpg").write_text("not a picture")
    given = {"image_size": None, "progress": False, "on_error": "skip", "errors": []}
    for pool in (StagePool(lite, (3, 4)), StageRegions(lite, (3, 4), most=14)):
        vectors = extract(pool, [PHOTOS[0], tmp_path / "no.jpg"], **given)
        for part in pool.split(vectors).values():
            assert np.isfinite(part[0]).all() and np.isnan(part[1]).all()


def test_refusals(lite):
    for stages, error, told in (
        ((2, 2), ImretError, "each once"),
        ((), ImretError, "at least one"),
        ((7,), SpecError, "there is no stage 7"),
    ):
        with pytest.raises(error, match=told):
            StagePool(lite, stages)
    with pytest.raises(SpecError, match="unknown pooling"):
        StagePool(lite, (2,), "max")
    with pytest.raises(ImretError, match="no backbone"):
        StagePool(object(), (2,))
    with pytest.raises(ImretError, match="from 1, not 0"):
        StageRegions(lite, (2,), most=0)
    with pytest.raises(ImretError, match=r"\(N, 264\), not \(2, 9\)"):
        StageRegions(lite, (2,), most=11).split(np.ones((2, 9)))
