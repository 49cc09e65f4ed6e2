"""The similarity explorer on the site: choose cells, and find the cosines that Python computes."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from imret.core import ImretError
from imret.datasets import load_dataset
from imret.explore import SimilarityExplorer, self_similarity
from imret.features import read_image, resize_image
from imret.nets import create_embedder

PAGE = "explore/similarity.html"
NAMES = ["motorcycle_left", "chelsea", "china", "coffee"]
# the page's numbers are in steps of 1/127 and shown in steps of 0.01
NEAR = 0.5 / 127 + 0.005 + 0.002


@pytest.fixture(scope="module")
def cosines():
    "By photo and layer, the cosine of all pairs of cells, in double precision."
    net = create_embedder("efficientnet_lite0-gem")
    paths = {path.stem: path for path in load_dataset("photos").queries}
    found = {}
    for name in NAMES:
        pixels = torch.from_numpy(resize_image(read_image(paths[name]), 512)[None])
        with torch.inference_mode():
            x = net.preprocess(pixels)
            *_, middle, _ = net.backbone.model.forward_intermediates(x, intermediates_only=True)
            maps = F.avg_pool2d(middle, 2)[0], net.backbone(x)[0]
        for layer, m in enumerate(maps):
            places = F.normalize(m.double().flatten(1), dim=0)
            found[name, layer] = (places.T @ places).numpy(), m.shape[2]
    return found


@pytest.fixture
def explorer(page, site):
    page.goto(f"{site}/{PAGE}")
    found = page.locator(".imret-similarity")
    found.locator("canvas").nth(1).wait_for()
    found.scroll_into_view_if_needed()
    return found


def place(text: str, columns: int) -> int:
    "The cell that a text names by row and column."
    row, column = map(int, re.search(r"row (\d+), column (\d+)", text).groups())
    return (row - 1) * columns + column - 1


def point(page, pane, cell: int, shape: tuple[int, int], act="click") -> None:
    "Put the mouse on a cell of a map."
    box = pane.bounding_box()
    y, x = divmod(cell, shape[1])
    at = (
        box["x"] + (x + 0.5) * box["width"] / shape[1],
        box["y"] + (y + 0.5) * box["height"] / shape[0],
    )
    getattr(page.mouse, act)(*at)


def test_every_photo_and_layer(page, explorer, cosines):
    buttons, panes = explorer.locator(".photos button"), explorer.locator(".map")
    assert [b.get_attribute("title") for b in buttons.all()] == NAMES
    rng = np.random.default_rng(0)
    for n, name in enumerate(NAMES):
        buttons.nth(n).click()
        for cell, other in rng.integers(0, 11 * 16, (3, 2)).tolist():
            point(page, panes.nth(n % 2), cell, (11, 16))
            words = explorer.locator(".words").inner_text()
            assert words.startswith(name) and place(words, 16) == cell
            for layer in range(2):
                truth, columns = cosines[name, layer]
                assert truth.shape == (11 * 16,) * 2 and columns == 16
                point(page, panes.nth(layer), other, (11, 16), "move")
                pointed = explorer.locator(".pointed").nth(layer).inner_text()
                assert place(pointed, 16) == other
                assert abs(float(pointed.split()[-1]) - truth[cell, other]) < NEAR
                check_most_alike(explorer.locator(".facts").nth(layer), truth, cell)


def check_most_alike(facts, truth: np.ndarray, cell: int) -> None:
    "The best of those more than two cells off."
    text = facts.inner_text()
    y, x = np.divmod(np.arange(len(truth)), 16)
    far = np.maximum(abs(y - cell // 16), abs(x - cell % 16)) > 2
    best = place(text, 16)
    assert far[best] and truth[cell, best] > truth[cell][far].max() - 1 / 127 - 0.002
    assert abs(float(text.split()[-1]) - truth[cell, best]) < NEAR


def test_arrow_keys_move_the_cell(page, explorer, cosines):
    words, pane = explorer.locator(".words"), explorer.locator(".map").nth(1)
    start = place(words.inner_text(), 16)
    pane.focus()
    for key, step in (("ArrowRight", 1), ("ArrowUp", -16), ("ArrowLeft", -1), ("ArrowDown", 16)):
        page.keyboard.press(key)
        start += step
        assert place(words.inner_text(), 16) == start
        for layer in range(2):
            truth, _ = cosines["motorcycle_left", layer]
            check_most_alike(explorer.locator(".facts").nth(layer), truth, start)
    for _ in range(20):
        page.keyboard.press("ArrowLeft")  # the border holds
    assert place(words.inner_text(), 16) == start - start % 16
    second = explorer.locator(".photos button").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    assert words.inner_text().startswith("chelsea: ")
    assert second.get_attribute("aria-pressed") == "true"


def test_the_colours_follow_the_cosines(page, explorer, cosines):
    truth, _ = cosines["motorcycle_left", 1]
    cell = place(explorer.locator(".words").inner_text(), 16)
    pixels = (
        explorer.locator("canvas")
        .nth(1)
        .evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    )
    light = np.array(pixels).reshape(-1, 4)[:, :3].sum(axis=1)
    order = np.corrcoef(light.argsort().argsort(), truth[cell].argsort().argsort())[0, 1]
    assert order > 0.99
    assert light.argmax() == cell


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_a_page_of_its_own_in_both_colours(chrome, tmp_path, scheme):
    "Maps of several shapes, signs and sizes; files that cannot be read are grey."
    rng = np.random.default_rng(0)
    first = [rng.normal(size=(8, 3, 9)), rng.normal(size=(8, 1, 1)), rng.random((8, 40, 10))]
    names = [tmp_path / f"{n}</script>.png".replace("/", "") for n in range(3)]
    explorer = SimilarityExplorer(
        names, {"a & <b>": first, "half": [-m / 2 for m in first]}, cells=5
    )
    explorer.to_html(tmp_path / "page.html")
    context = chrome.new_context(color_scheme=scheme)
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(error))
    page.goto(f"file://{tmp_path}/page.html")
    pane = page.locator(".imret-similarity .map").first
    pane.wait_for()
    for n, (rows, columns) in enumerate([(2, 5), (1, 1), (5, 1)]):
        page.locator(".photos button").nth(n).click()
        alike = self_similarity(first[n], cells=5)
        assert alike.shape == (rows, columns, rows, columns)
        for cell in range(rows * columns):
            point(page, pane, cell, (rows, columns))
            for other in range(rows * columns):
                point(page, pane, other, (rows, columns), "move")
                wanted = alike[divmod(cell, columns)][divmod(other, columns)] / 127
                shown = page.locator(".pointed").first.inner_text()
                assert shown.endswith(f": {wanted:.2f}"), (cell, other)
    page.locator(".photos button").nth(1).click()
    assert page.locator(".facts").all_inner_texts() == ["no place further off"] * 2
    assert page.locator("figcaption b").all_inner_texts() == ["a & <b>", "half"]
    text = page.locator(".facts").first.evaluate("e => getComputedStyle(e).color")
    assert (text == "rgb(255, 255, 255)") == (scheme == "dark")
    assert not complaints
    context.close()


def test_wide_content_stays_inside_a_narrow_page(page, explorer):
    page.set_viewport_size({"width": 420, "height": 800})
    assert explorer.evaluate("e => e.scrollWidth") <= explorer.bounding_box()["width"] + 1


# --- in Python


def test_self_similarity_by_loops():
    x = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    x[:, 1, 1] = 0
    alike = self_similarity(torch.from_numpy(x).half())
    for a in np.ndindex(4, 3):
        for b in np.ndindex(4, 3):
            u, v = (x[:, *p].astype(np.float64) for p in (a, b))
            length = np.linalg.norm(u) * np.linalg.norm(v)
            cosine = u @ v / length if length else 0.0
            assert abs(alike[a][b] / 127 - cosine) < 0.5 / 127 + 1e-3
    assert (alike.reshape(12, 12) == alike.reshape(12, 12).T).all()


@pytest.mark.parametrize(
    "wrong, said",
    [
        (((), {"a": ()}), "at least one image"),
        ((["x.png"], {}), "at least one image"),
        ((["x.png"], {"a": []}), "0 maps of 'a' for 1 images"),
        ((["x.png"], {"a": [np.ones((2, 3, 3))], "b": [np.ones((2, 3, 4))]}), "a 3 x 3, b 3 x 4"),
        ((["x.png"], {"a": [np.ones((3, 3))]}), r"a map is \(C, h, w\)"),
        ((["x.png"], {"a": [np.full((2, 3, 3), np.nan)]}), "not finite"),
        ((["x.png"], {"a": [np.ones((2, 3, 3))]}, 16, 340, [(3, 0)]), r"start \(3, 0\) is outside"),
        ((["x.png"], {"a": [np.ones((2, 3, 3))]}, 16, 340, []), "start names 0 cells"),
        ((["x.png"], {"a": [np.ones((2, 3, 3))]}, 0), "cells=0"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, said):
    with pytest.raises(ImretError, match=said):
        SimilarityExplorer(*wrong)
