"""Surfaces, facades and buildings of the town: what would bore a reader of their notebooks."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imret.core import DatasetError
from imret.datasets.town_buildings import BUILDINGS, draw_building, scaffold
from imret.datasets.town_details import clock_looks, mural, opening, window_looks
from imret.datasets.town_facades import facade, roof
from imret.datasets.town_parts import SQUARE
from imret.datasets.town_surfaces import (
    PIXELS_PER_METRE,
    WINDOWS,
    Look,
    Spot,
    Surface,
    colour,
    draw_style,
    noise,
    pixels,
    vary_style,
)

SEEDS = range(5)
FEATURES = (None, "mural", "centre", "clock", "rose")


def rng_of(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def building_of(kind: str, seed: int):
    return draw_building(rng_of(seed, 1), draw_style(rng_of(seed, 2)), kind)


def pictures(surface: Surface) -> list[np.ndarray]:
    return [a for a in (surface.rgb, surface.alpha, surface.glow) if a is not None]


def check_surface(surface: Surface) -> None:
    "Types and shapes agree."
    h, w = surface.rgb.shape[:2]
    assert surface.rgb.shape == (h, w, 3)
    assert all(a.dtype == np.uint8 and a.shape[:2] == (h, w) for a in pictures(surface))
    assert surface.alpha is None or surface.alpha.ndim == 2
    for spot in surface.spots:
        shapes = {(look.alpha.shape, look.origin) for look in spot.looks}
        assert len(shapes) == 1, "all looks of a spot cover the same place"
        for look in spot.looks:
            assert look.rgb.shape == look.glow.shape == (*look.alpha.shape, 3)
            assert (look.rgb.astype(int) <= look.alpha[..., None].astype(int) + 3).all()


# --- surfaces


@given(st.floats(-3, 3), st.floats(-1, 2), st.floats(-1, 2))
def test_colour(hue, saturation, value):
    got = colour(hue, saturation, value)
    assert got.shape == (3,) and got.dtype == np.float32
    assert (got >= 0).all() and (got <= 255).all()


@pytest.mark.parametrize("shape", [(12, 12), (12, 700), (700, 12), (65, 1)])
def test_noise_of_any_shape(shape):
    values = noise(rng_of(0), *shape)
    assert values.shape == shape and np.isfinite(values).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(-60, 120), st.integers(-60, 120))
def test_paste_is_cut_at_the_border(x, y):
    "Pasting anywhere equals pasting on a wide margin and cropping."
    look = Look.blank(1, 1, (5, 7))
    look.fill([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)], (250, 40, 90), (9, 8, 7))
    rgb = rng_of(1).integers(0, 256, (66, 88, 3), np.uint8)
    wide = Surface(np.pad(rgb, ((90, 90), (90, 90), (0, 0))))
    small = Surface(rgb.copy(), glow=np.zeros_like(rgb))
    wide.paste(look, x + 90, y + 90)
    small.paste(look, x, y)
    assert (wide.rgb[90:-90, 90:-90] == small.rgb).all()


def test_add_keeps_only_what_is_not_hidden():
    looks = [Look.blank(1, 1)]
    looks[0].fill(SQUARE, (9, 9, 9))
    surface = Surface(np.zeros((88, 88, 3), np.uint8), glow=np.zeros((88, 88, 3), np.uint8))
    for x in (0, 40):
        surface.add(Spot(x, 0, looks))
    assert len(surface.spots) == 2
    surface.add(Spot(30, -4, looks))
    assert [s.x for s in surface.spots] == [0, 30]


@pytest.mark.parametrize("seed", SEEDS)
def test_visits(seed):
    "Equal generators, equal bytes; the wall stays; amount 0 changes nothing; it does change."
    wall = facade(rng_of(seed), 12, 9, draw_style(rng_of(seed, 5)))
    kept = [a.copy() for a in pictures(wall)]
    a, b, c = (wall.visit(rng_of(s)) for s in (1, 1, 2))
    for p, q in zip(pictures(a), pictures(b), strict=True):
        assert (p == q).all()
    assert (a.rgb != c.rgb).any()
    for p, q in zip(pictures(wall.visit(rng_of(1), amount=0)), kept, strict=True):
        assert (p == q).all()
    for p, q in zip(pictures(wall), kept, strict=True):
        assert (p == q).all()
    check_surface(a.visit(rng_of(3)))  # a visit of a visit


def test_visit_draws_only_from_its_generator():
    wall = facade(rng_of(0), 8, 8, draw_style(rng_of(1)))
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    wall.visit(rng_of(2))
    assert (np.random.get_state()[1] == state).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 3))
def test_styles(seed, amount):
    family = draw_style(rng_of(seed))
    house = vary_style(rng_of(seed, 1), family, amount)
    assert family == draw_style(rng_of(seed))
    assert vary_style(rng_of(seed, 1), family, 0) == family
    assert len(house.windows) == 3 and set(house.windows) <= set(WINDOWS)
    assert 0 < house.window_size[0] < 0.8 and 0 < house.window_size[1] < 0.8
    assert house.bay > 0.5 and house.storey > 0.5


# --- details and facades


@pytest.mark.parametrize("kind", ["rect", "arch", "segmental", "gothic"])
@pytest.mark.parametrize("size", [(0.4, 3), (1, 1), (3, 0.4)])
def test_openings_fill_their_box(kind, size):
    outline = opening(kind, 2, 1, *size)
    assert np.allclose(outline.min(0), (2, 1)) and np.allclose(outline.max(0), np.add((2, 1), size))


@pytest.mark.parametrize("kind", sorted(set(WINDOWS)))
@pytest.mark.parametrize("seed", SEEDS)
def test_windows_and_clocks(kind, seed):
    style = draw_style(rng_of(seed))
    looks = window_looks(rng_of(seed), kind, rng_of(seed).uniform(0.4, 3), 1.8, style)
    spots = [Spot(0, 0, looks), Spot(0, 0, clock_looks(rng_of(seed), 0.3 + seed / 3))]
    check_surface(Surface(np.zeros((44, 44, 3), np.uint8), spots=spots))


@pytest.mark.parametrize("size", [(0.1, 0.1), (0.6, 9), (9, 0.6), (4, 3)])
def test_murals_of_any_size(size):
    for seed in range(20):
        assert mural(rng_of(seed), *size).shape == (pixels(size[1]), pixels(size[0]), 3)


@pytest.mark.parametrize("role", ["front", "side", "tower", "plain"])
@pytest.mark.parametrize("feature", FEATURES)
def test_facades(role, feature):
    for seed, size in enumerate([(1.5, 1.8), (3, 20), (30, 3), (7, 7), (25, 14)]):
        wall = facade(rng_of(seed), *size, draw_style(rng_of(seed, 1)), role, feature)
        check_surface(wall)
        assert wall.rgb.shape[:2] == (pixels(size[1]), pixels(size[0]))
        assert wall.alpha is None and wall.glow is not None


def test_roofs():
    for seed, size in enumerate([(0.2, 0.2), (20, 0.5), (0.5, 20), (20, 6)]):
        check_surface(roof(rng_of(seed), *size, draw_style(rng_of(seed))))


# --- buildings

each_kind = pytest.mark.parametrize("kind", BUILDINGS)


@each_kind
@pytest.mark.parametrize("seed", SEEDS)
def test_buildings(kind, seed):
    building = building_of(kind, seed)
    assert building.kind == kind
    assert 5 < building.width < 40 and 4 < building.depth < 30 and 6 < building.height < 60
    for plane in building.planes:
        check_surface(plane.surface)
        for v in (plane.origin, plane.across, plane.down):
            assert v.shape == (3,) and v.dtype == np.float64 and np.isfinite(v).all()
        u, v = plane.across, plane.down
        assert abs(u @ v) < 0.2 * np.linalg.norm(u) * np.linalg.norm(v), "nearly right angles"
        assert np.isclose(np.linalg.norm(plane.normal), 1)
        assert plane.normal[2] > -1e-9, "nothing is seen only from below"
        assert plane.point(*plane.outline.T)[:, 2].min() > -1e-9, "nothing is below the ground"


@each_kind
@pytest.mark.parametrize("seed", SEEDS)
def test_textures_are_not_stretched(kind, seed):
    "A pixel is about a square of 1/22 m, but on tops and turrets, where it does not matter."
    for plane in building_of(kind, seed).planes:
        if plane.normal[2] > 0.2 or plane.surface.rgb.shape[1] < 22:
            continue
        h, w = plane.surface.rgb.shape[:2]
        size = np.linalg.norm(plane.across), np.linalg.norm(plane.down)
        density = np.array([w, h]) / size / PIXELS_PER_METRE
        assert (density > 0.8).all() and (density < 1.25).all(), (density, size)


@each_kind
@pytest.mark.parametrize("seed", SEEDS)
def test_outlines_bound_what_is_seen(kind, seed):
    "Alpha lies in the outline, which is convex, and fills most of it where there are no holes."
    s, t = np.meshgrid((np.arange(60) + 0.5) / 60, (np.arange(60) + 0.5) / 60)
    for plane in building_of(kind, seed).planes:
        outline = plane.outline
        edges = np.roll(outline, -1, 0) - outline
        after = np.roll(edges, -1, 0)
        turn = edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0]
        assert (turn >= -1e-9).all(), "clockwise and convex"
        assert (outline >= 0).all() and (outline <= 1).all()
        points = np.stack([s, t], -1)[..., None, :] - outline
        normal = np.stack([-edges[:, 1], edges[:, 0]], -1) / np.linalg.norm(edges, axis=1)[:, None]
        depth = (points * normal).sum(-1).min(-1)  # inside: positive
        h, w = plane.surface.rgb.shape[:2]
        solid = plane.solid(s, t)
        assert not solid[depth < -2 / min(h, w)].any()
        if len(outline) != 4 or not np.allclose(np.sort(outline, 0), np.sort(SQUARE, 0)):
            assert solid[depth > 2 / min(h, w)].mean() > 0.7


@each_kind
def test_walls_look_outwards(kind):
    "Walls to the left look left, walls to the right look right, somewhere."
    for seed in SEEDS:
        planes = building_of(kind, seed).planes
        left = [p.origin[0] for p in planes if p.normal[0] < -0.99]
        right = [p.origin[0] for p in planes if p.normal[0] > 0.99]
        assert not left or min(left) < 0
        assert not right or max(right) > 0


@each_kind
def test_same_seed_same_building(kind):
    a, b = building_of(kind, 3), building_of(kind, 3)
    assert len(a.planes) == len(b.planes)
    for p, q in zip(a.planes, b.planes, strict=True):
        assert all(
            (getattr(p, k) == getattr(q, k)).all() for k in ("origin", "across", "down", "outline")
        )
        for x, y in zip(pictures(p.surface), pictures(q.surface), strict=True):
            assert (x == y).all()


def test_same_bytes_in_another_process():
    "Nothing hangs on the order of sets or on what was made before."
    code = (
        "import numpy as np, zlib\n"
        "from imret.datasets.town_buildings import draw_building\n"
        "from imret.datasets.town_surfaces import draw_style\n"
        "r = np.random.default_rng\n"
        "b = draw_building(r(1), draw_style(r(2)), 'hall')\n"
        "print([zlib.crc32(p.surface.visit(r(3)).rgb.tobytes()) for p in b.planes])\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", before + code], capture_output=True, text=True, check=True
        ).stdout
        for before in ("", "import cv2; cv2.setNumThreads(1)\n")
    ]
    assert runs[0] == runs[1] and runs[0].startswith("[")


def test_kinds_are_drawn_evenly():
    style = draw_style(rng_of(0))
    kinds = [draw_building(rng_of(s), style).kind for s in range(30)]
    assert "row" not in kinds and len(set(kinds)) == len(BUILDINGS) - 1


def test_unknown_kind():
    with pytest.raises(DatasetError, match="castle.*church"):
        draw_building(rng_of(0), draw_style(rng_of(0)), "castle")


def test_solid_outside_and_of_any_shape():
    plane = building_of("row", 0).planes[0]
    s = np.array([[-0.1, 0.0, 0.5], [1.0, 1.1, np.nan]])
    assert plane.solid(s, np.full((2, 3), 0.5)).tolist() == [
        [False, True, True],
        [True, False, False],
    ]
    triangle = next(p for p in building_of("church", 0).planes if len(p.outline) == 3)
    assert triangle.solid(np.array(0.5), np.array(0.9)) and not triangle.solid(0.01, 0.01)


@each_kind
@pytest.mark.parametrize("seed", SEEDS)
def test_scaffolds(kind, seed):
    building = building_of(kind, seed)
    planes = scaffold(rng_of(seed), building)
    front = min(p.origin[1] for p in building.planes if p.normal[1] < -0.9)
    for plane in planes:
        check_surface(plane.surface)
        assert plane.normal[1] < -0.9 or plane.normal[2] < -0.9
        assert plane.point(*SQUARE.T)[:, 2].min() >= -1e-9
        assert plane.origin[1] >= front - 1.3
    seen = planes[1].surface.alpha > 127
    assert 0.05 < seen.mean() < 0.97, "one sees through it, but not everywhere"
