"""The rendered town's light and street: equal seeds, fixed draws, odd sizes, and their limits."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imret.core import DatasetError
from imret.datasets.town_light import (
    LIGHTS,
    cast_shadow,
    develop,
    draw_lens,
    draw_light,
    flat_tone,
    hazed,
    night_texture,
    paint_sky,
    tone,
)
from imret.datasets.town_street import (
    GROUND_COLOURS,
    SEASONS,
    SIZES,
    Sketch,
    bench,
    car,
    draw_ground,
    ground_colour,
    ground_tile,
    lamp,
    litter_bin,
    person,
    poster_column,
    rounded,
    seamless_noise,
    tree,
)

each_kind = pytest.mark.parametrize("kind", LIGHTS)
seeds = st.integers(0, 2**31)
MAKERS = (person, car, lamp, poster_column, bench, litter_bin, tree)


def make_rng(seed=0):
    return np.random.default_rng(seed)


def make_rays(h=60, w=80):
    "Directions of a camera that looks along y, a little upwards."
    u, v = np.meshgrid(np.linspace(-0.6, 0.6, w), np.linspace(0.6, -0.3, h))
    return np.dstack([u, np.ones_like(u), v]).astype(np.float32)


def wall_points(h=60, w=80):
    "Points of a wall at y = 0, 40 m wide and 20 m high, one for every second pixel."
    x, z = np.meshgrid(np.linspace(-20, 20, (w + 1) // 2), np.linspace(20, 0, (h + 1) // 2))
    return np.dstack([x, 0 * x, z])


def shadow_light():
    "A low sun behind houses."
    low = np.array([0.2, -0.9, 0.3])
    light = draw_light(make_rng(1), "sun")
    return replace(light, shadow=True, direction=low / np.linalg.norm(low))


def same(a, b):
    "Whether two dataclasses hold equal values, arrays included."
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


# ---- what is drawn


def test_chances():
    assert np.isclose(sum(LIGHTS.values()), 1)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_same_state_same_light_and_lens(seed):
    a, b = make_rng(seed), make_rng(seed)
    light = draw_light(a)
    assert same(light, draw_light(b))
    assert draw_lens(a, light) == draw_lens(b, light)
    assert a.bit_generator.state == b.bit_generator.state


@each_kind
def test_every_kind_draws_as_often(kind):
    "What is drawn after a light does not depend on the light."
    free, forced = make_rng(3), make_rng(3)
    draw_light(free)
    light = draw_light(forced, kind)
    assert free.bit_generator.state == forced.bit_generator.state
    assert light.kind == kind and light.night == (kind == "night")
    draw_lens(free, light)
    draw_lens(forced, replace(light, kind="sun"))
    assert free.bit_generator.state == forced.bit_generator.state


@each_kind
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_light_within_limits(kind, seed):
    light = draw_light(make_rng(seed), kind)
    assert np.isclose(np.linalg.norm(light.direction), 1)
    assert 0.15 < light.direction[2] < 0.95 and light.direction[1] < 0
    assert (light.ambient > 0).all() and (light.sun >= 0).all()
    assert (light.haze > 0) == (kind == "haze")
    assert not light.shadow or kind in ("sun", "dusk")
    assert all(isinstance(v, float) and 0 <= v < 1 for v in light.sky)


def test_unknown_names():
    with pytest.raises(DatasetError, match="unknown light 'fog'.*overcast"):
        draw_light(make_rng(), "fog")
    with pytest.raises(DatasetError, match="unknown season 'may'.*autumn"):
        tree(make_rng(), "may")


# ---- tones


@each_kind
@given(seed=seeds, normal=st.tuples(*[st.floats(-1, 1)] * 3))
@settings(max_examples=20, deadline=None)
def test_tone_is_bounded(kind, seed, normal):
    light = draw_light(make_rng(seed), kind)
    n = np.array(normal)
    n = n / np.linalg.norm(n) if np.linalg.norm(n) > 1e-3 else np.array([0.0, -1.0, 0.0])
    t = tone(light, n)
    assert t.shape == (3,) and t.dtype == np.float32
    assert (t > 0).all() and (t <= light.ambient + light.sun + 1e-6).all()
    assert flat_tone(light).dtype == np.float32


def test_night_texture_keeps_its_input():
    rgb = make_rng().integers(0, 256, (37, 11, 3), dtype=np.uint8)
    before = rgb.copy()
    dark = night_texture(rgb, np.full_like(rgb, 255))
    assert np.array_equal(rgb, before) and dark.dtype == np.uint8
    assert (dark == 229).all()
    assert night_texture(rgb).mean() < 0.5 * rgb.mean()
    assert night_texture(rgb[:1]).shape == (1, 11, 3)


# ---- sky, haze, shadow


@each_kind
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (61, 83), (120, 90)])
def test_sky_of_any_size(kind, size):
    rays = make_rays(*size)
    before = rays.copy()
    sky = paint_sky(draw_light(make_rng(), kind), rays)
    assert sky.shape == (*size, 3) and sky.dtype == np.float32
    assert np.isfinite(sky).all() and (sky >= 0).all() and (sky <= 255).all()
    assert np.array_equal(rays, before)


@each_kind
def test_sky_in_all_directions(kind):
    "Straight up, straight down, behind: finite, and smooth around the zenith."
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, 128), np.linspace(-0.2, 0.2, 128))
    light = draw_light(make_rng(), kind)
    for up in (1, -1):
        sky = paint_sky(light, np.dstack([x, y, np.full_like(x, up)]).astype(np.float32))
        assert np.isfinite(sky).all()
        assert np.abs(np.diff(sky, axis=1)).max() < 12


def test_haze_grows_with_depth_and_spares_the_sky():
    light = draw_light(make_rng(), "haze")
    near_to_far = np.array([[1, 0.1, 0.01, 0.001, 0]])
    image = np.zeros((1, 5, 3), np.float32)
    fog = hazed(image, near_to_far, light)
    assert fog is image
    assert (np.diff(fog[0, :4, 0]) > 0).all() and (fog[0, 4] == 0).all()
    clear = draw_light(make_rng(), "sun")
    assert (hazed(np.ones((1, 5, 3), np.float32), near_to_far, clear) == 1).all()


@pytest.mark.parametrize("size", [(60, 80), (61, 83)])
def test_shadow_only_darkens(size):
    light = shadow_light()
    image = np.full((*size, 3), 200, np.float32)
    shaded = cast_shadow(image, wall_points(*size), light)
    assert shaded is image
    least = 200 * light.ambient / (light.ambient + 0.55 * light.sun)
    assert (shaded <= 200.001).all() and (shaded >= least - 0.01).all()
    assert (shaded < 199).any()


@pytest.mark.parametrize("nothing", [np.nan, np.inf])
def test_no_shadow_on_the_sky(nothing):
    light = shadow_light()
    image = np.full((60, 80, 3), 200, np.float32)
    cast_shadow(image, np.full((30, 40, 3), nothing), light)
    assert (image == 200).all()


def test_no_shadow_from_a_sun_in_front():
    "The houses stand behind the photographer: a sun that stands before him finds none."
    light = shadow_light()
    for direction in ([0, 0.6, 0.8], [0.8, 0, 0.6]):
        image = np.full((60, 80, 3), 200, np.float32)
        cast_shadow(image, wall_points(), replace(light, direction=np.array(direction, float)))
        assert (image == 200).all()


def test_shadow_by_hand():
    "Houses 14 m high everywhere, where 2 + 24 (u - 1/4) / (3/4) = 14."
    light = replace(
        draw_light(make_rng(), "sun"),
        shadow=True,
        direction=np.array([0, -1, 0.6]) / np.hypot(1, 0.6),
        sky=(0.5,) * 6 + (0.625,) * 32,
    )
    image = np.full((400, 20, 3), 100, np.float32)
    cast_shadow(image, wall_points(400, 20), light)  # 20 m high, so 5 cm a row
    edge = 400 - 20 * (14 - 20 * 0.6)  # 12 m are lost on the way of 20 m
    assert (image[: int(edge) - 8] == 100).all()
    assert (image[int(edge) + 8 :] < 95).all()


# ---- lens


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_develop(seed):
    rng = make_rng(seed)
    light = draw_light(rng)
    lens = draw_lens(rng, light)
    image = rng.uniform(-50, 400, (48, 64, 3)).astype(np.float32)
    before = image.copy()
    photo = develop(image, lens)
    assert photo.shape == image.shape and photo.dtype == np.uint8
    assert np.array_equal(image, before)
    assert np.array_equal(photo, develop(image, lens))


@pytest.mark.parametrize("size", [(1, 1), (360, 480), (512, 512)])
def test_develop_sizes(size):
    lens = replace(
        draw_lens(make_rng(), draw_light(make_rng())), grain=(511, 511), blur=1.0, motion=6
    )
    assert develop(np.zeros((*size, 3), np.float32), lens).shape == (*size, 3)


def test_develop_says_what_is_too_large():
    lens = draw_lens(make_rng(), draw_light(make_rng()))
    with pytest.raises(DatasetError, match="512 pixels"):
        develop(np.zeros((100, 513, 3), np.float32), lens)


def test_grain_differs_between_offsets():
    lens = replace(draw_lens(make_rng(), draw_light(make_rng())), noise=5.0)
    grey = np.full((50, 50, 3), 128, np.float32)
    a, b = (develop(grey, replace(lens, grain=g)) for g in ((0, 0), (7, 100)))
    assert (a != b).mean() > 0.5


# ---- ground


@pytest.mark.parametrize("kind", GROUND_COLOURS)
def test_tiles_have_no_seam(kind):
    tile = ground_tile(make_rng(), kind).astype(float)
    for axis in (0, 1):
        t = np.moveaxis(tile, axis, 0)
        steps = np.abs(np.diff(t, axis=0)).mean((1, 2))
        assert np.abs(t[0] - t[-1]).mean() <= 1.3 * steps.max()


@pytest.mark.parametrize("cells", [(4, 4), (4, 8), (64, 64)])
def test_noise_repeats(cells):
    noise = seamless_noise(make_rng(), 128, cells, 4)
    assert noise.shape == (128, 128) and noise.dtype == np.float32
    for axis in (0, 1):
        t = np.moveaxis(noise, axis, 0)
        assert np.abs(t[0] - t[-1]).max() <= 1.5 * np.abs(np.diff(t, axis=0)).max()
    assert 0.3 < noise.std() < 2


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_same_state_same_ground(seed):
    a, b = make_rng(seed), make_rng(seed)
    assert same(draw_ground(a), draw_ground(b))
    assert a.bit_generator.state == b.bit_generator.state


def test_ground_anywhere():
    "Far away, negative, on the kerb, in any shape, and in either precision: finite and bounded."
    rng = make_rng()
    for seed in range(12):
        ground = draw_ground(make_rng(seed))
        x, y = rng.uniform(-1000, 1000, (2, 7, 11))
        y[0] = -ground.kerb
        for kind in (np.float32, float):
            distance = np.hypot(x, y).astype(kind)
            seen = ground_colour(ground, x.astype(kind), y.astype(kind), distance)
            assert seen.shape == (7, 11, 3) and seen.dtype == np.float32
            assert (seen >= 0).all() and (seen <= 255 + 28 + 90 + 80).all()
        assert ground_colour(ground, x[0], y[0], distance[0]).shape == (11, 3)


def test_pavement_and_street():
    for seed in range(12):
        ground = draw_ground(make_rng(seed))
        x = np.linspace(0, 50, 500)
        for kind, y in ((ground.pavement, -ground.kerb + 1), (ground.street, -ground.kerb - 7)):
            seen = ground_colour(ground, x, np.full(500, y), np.full(500, 100.0))
            hue = np.median(seen, 0) - ground.tiles[int(kind is ground.street)].mean((0, 1, 2))
            assert np.abs(hue).max() < 6


def test_a_stripe_keeps_its_paint():
    "However far it is, a lane line adds the same white, summed over depth."
    ground = replace(draw_ground(make_rng()), lane=True, zebra=None)
    bare = replace(ground, lane=False)
    y = -ground.kerb - 3.4 + np.linspace(-3, 3, 6001)
    x, sums = np.zeros_like(y), []
    for distance in (2.0, 10.0, 30.0):
        far = np.full_like(y, distance)
        white = ground_colour(ground, x, y, far) - ground_colour(bare, x, y, far)
        sums.append(white[:, 0].sum())
    assert np.allclose(sums, sums[0], rtol=0.02)


# ---- things


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_things(make):
    for seed in range(5):
        a, b = make_rng(seed), make_rng(seed)
        one, two = make(a), make(b)
        assert a.bit_generator.state == b.bit_generator.state
        assert np.array_equal(one.rgb, two.rgb) and np.array_equal(one.alpha, two.alpha)
        assert one.rgb.dtype == one.alpha.dtype == np.uint8
        assert one.rgb.shape == (*one.alpha.shape, 3)
        h, w = one.alpha.shape
        wide, high = SIZES[make.__name__]
        assert abs(w / h - wide / high) < 0.02
        assert (one.alpha[-3:] > 0).any(), "stands on the ground"
        assert (one.alpha[0] < 255).any() and one.rgb.flags.c_contiguous
        if one.glow is not None:
            assert one.glow.shape == one.rgb.shape and one.glow.flags.c_contiguous


def test_seasons_draw_alike():
    states = []
    for season in SEASONS:
        rng = make_rng(4)
        tree(rng, season)
        states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)


def test_trees_stay_inside():
    "Nothing is cut off at the sides or at the top."
    for seed in range(20):
        alpha = tree(make_rng(seed)).alpha
        assert alpha[0].max() == 0 and alpha[:, 0].max() == 0 and alpha[:, -1].max() == 0


def test_empty_corner_has_the_mean_colour():
    "So that shrinking a picture leaves no dark rim."
    sketch = Sketch((1, 1), 16)
    sketch.polygon([(-0.2, 0.2), (0.2, 0.2), (0.2, 0.6), (-0.2, 0.6)], (200, 100, 50))
    surface = sketch.surface()
    assert (surface.rgb == (200, 100, 50)).all()
    assert surface.glow is None and surface.alpha[0, 0] == 0


def test_rounding_keeps_the_middle():
    corners = [(0, 0), (4, 0), (4, 2), (0, 2)]
    for times in range(4):
        assert np.allclose(rounded(corners, times).mean(0), (2, 1))
