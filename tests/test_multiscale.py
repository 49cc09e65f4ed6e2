"""Several sizes in one descriptor: a plain loop, limits, skipped pictures, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from imret.core import ImretError, l2_normalize
from imret.features import (
    combine_scales,
    extract,
    extract_multiscale,
    resolutions,
    scale_power,
)
from imret.nets import create_embedder

PHOTOS = [data.chelsea()[:150, :200], data.coffee()[:200, :120]]
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create_embedder("resnet18-gem", pretrained=False)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.floats(0.5, 8), st.integers(0, 99))
def test_power_mean_equals_the_plain_loop(scales, power, seed):
    v = l2_normalize(np.random.default_rng(seed).random((scales, 5, 7)) + 1e-3)
    wanted = np.zeros((5, 7))
    for scale in v.astype(np.float64):
        wanted += scale**power
    wanted = (wanted / scales) ** (1 / power)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.allclose(combine_scales(v, power), wanted, atol=1e-5)


def test_limits_of_the_power():
    v = l2_normalize(np.random.default_rng(0).random((3, 5, 7)))
    assert np.allclose(combine_scales(v, 500), l2_normalize(v.max(axis=0)), atol=0.01)
    assert np.allclose(combine_scales(v, 1 + 1e-4), combine_scales(v, 1), atol=1e-4)
    assert np.allclose(combine_scales(v[:1], 3), v[0], atol=1e-6)
    tiny = combine_scales(np.full((3, 1, 2), 1e-20, np.float32), 3)
    assert np.isfinite(tiny).all()


def test_rows_of_nan_and_zeros():
    v = l2_normalize(np.random.default_rng(0).random((2, 4, 6)))
    v[1, 2] = np.nan
    v[:, 3] = 0
    for power in (1, 3):
        out = combine_scales(v, power)
        assert np.isnan(out[2]).all() and np.isfinite(out[[0, 1, 3]]).all()
        assert not out[3].any()


@pytest.mark.parametrize(
    "vectors, power, said",
    [
        (np.ones((3, 4)), 1, r"\(S, N, D\), not \(3, 4\)"),
        (np.ones((0, 3, 4)), 1, r"\(S, N, D\)"),
        (np.ones((2, 3, 4)), 0, "positive"),
        (np.ones((2, 3, 4)), np.nan, "positive"),
        (-np.ones((2, 3, 4)), 3.0, "power=1"),
    ],
)
def test_what_cannot_be_combined(vectors, power, said):
    with pytest.raises(ImretError, match=said):
        combine_scales(vectors, power)


@pytest.mark.parametrize("scales", ["", "two", (), (0.0001,), "rmac"])
def test_sizes_that_make_no_sense(scales):
    with pytest.raises(ImretError):
        resolutions(scales, 250)


def test_power_of_a_net(net):
    assert scale_power(net) == 3
    assert scale_power(create_embedder("resnet18-gem:p=2", pretrained=False)) == 2
    assert scale_power(create_embedder("resnet18-gem:p=2-hash:8", pretrained=False)) == 1
    assert scale_power(create_embedder("resnet18-mac", pretrained=False)) == 1
    net.whiten = torch.nn.Linear(1, 1)
    try:
        assert scale_power(net) == 1
    finally:
        net.whiten = None


@pytest.mark.parametrize("power", [1.0, None, 2.0])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_single_sizes_combined(net, power, flip):
    boxes = [None, (10, 20, 90, 150)]
    mirrored = [PHOTOS[0][:, ::-1], PHOTOS[1][20:150, 10:90][:, ::-1]]
    each = [extract(net, PHOTOS, boxes, s, **QUIET) for s in (64, 128)]
    each += [extract(net, mirrored, None, s, **QUIET) for s in (64, 128)] if flip else []
    wanted = combine_scales(np.stack(each), 3 if power is None else power)
    ours = extract_multiscale(net, PHOTOS, boxes, 128, (0.5, 1), power, flip, **QUIET)
    assert np.allclose(ours, wanted, atol=1e-6)


def test_one_size_is_extract(net):
    ours = extract_multiscale(net, PHOTOS, image_size=96, scales="one", power=None, **QUIET)
    assert np.allclose(ours, extract(net, PHOTOS, image_size=96, **QUIET), atol=1e-6)


def test_skipped_pictures_are_listed_once(net, tmp_path):
    images, errors = [PHOTOS[0], tmp_path / "none.jpg", PHOTOS[1]], []
    how = {"on_error": "skip", "errors": errors, "flip": True, **QUIET}
    v = extract_multiscale(net, images, None, 64, (1, 1.5), **how)
    assert np.isnan(v[1]).all() and np.isfinite(v[[0, 2]]).all()
    assert [i for i, _ in errors] == [1] and "none.jpg" in str(errors[0][1])
