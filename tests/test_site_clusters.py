"""The cluster explorer on the site: turn its pages, and find what Python computes."""

import numpy as np
import pytest

from imret.datasets import data_root, load_dataset
from imret.explore import nearest, weakest_pair
from imret.features import extract
from imret.nets import create_embedder


@pytest.fixture(scope="module")
def similarity():
    "Of the photographs of the page, by their names as shown."
    photos, net = load_dataset("photos"), create_embedder("efficientnet_lite0-gem")
    given = {"image_size": 224, "cache_dir": data_root() / "cache", "progress": False}
    vectors = extract(net, photos.images, **given)
    names = ["/".join(p.parts[-2:]) for p in photos.images]
    return vectors @ vectors.T, names, photos.labels


@pytest.fixture
def explorer(page, site):
    page.goto(f"{site}/explore/clusters.html")
    found = page.locator(".imret-clusters")
    found.locator(".pictures button").first.wait_for()
    return found


def shown(explorer, names):
    "Positions of the pictures on the page."
    buttons = explorer.locator(".pictures button").all()
    return [names.index(b.get_attribute("title")) for b in buttons]


def numbers(explorer):
    return [t.split()[0] for t in explorer.locator(".pictures b").all_inner_texts()]


def test_every_group_and_its_weakest_pair(explorer, similarity):
    table, names, labels = similarity
    pages = explorer.locator(".strip button").count()
    assert pages >= 5
    seen = set()
    for n in range(pages):
        assert explorer.locator(".where").inner_text() == f"group {n + 1} of {pages}"
        ids = shown(explorer, names)
        seen.add(tuple(ids))
        among = table[np.ix_(ids, ids)]
        weak = weakest_pair(among)
        assert f"weakest pair {among[weak]:.3f}" in explorer.locator(".facts").inner_text()
        marked = [
            i
            for i, b in enumerate(explorer.locator(".pictures button").all())
            if "weak" in b.get_attribute("class")
        ]
        assert tuple(marked) == weak
        assert numbers(explorer) == ["chosen", *(f"{v:.3f}" for v in among[0, 1:])]
        explorer.get_by_role("button", name="next cluster").click()
    assert len(seen) == pages
    assert explorer.locator(".where").inner_text() == f"group 1 of {pages}"


def test_nearest_neighbours_and_their_marks(explorer, similarity):
    table, names, labels = similarity
    explorer.get_by_role("button", name="nearest neighbours").click()
    for n in range(explorer.locator(".strip button").count()):
        explorer.locator(".strip button").nth(n).click()
        query, *found = shown(explorer, names)
        assert found == nearest(table[query], len(found), query).tolist()
        assert numbers(explorer)[1:] == [f"{table[query, i]:.3f}" for i in found]
        marks = [t.split()[1] for t in explorer.locator(".pictures b").all_inner_texts()[1:]]
        assert marks == ["✓" if labels[i] == labels[query] else "✗" for i in found]


def test_any_picture_can_be_asked(explorer, similarity):
    table, names, _ = similarity
    ids = shown(explorer, names)
    explorer.locator(".pictures button").nth(2).click()
    wanted = [f"{table[ids[2], i]:.3f}" for i in ids]
    wanted[2] = "chosen"
    assert numbers(explorer) == wanted
    assert explorer.locator(".detail").inner_text().startswith(f"{names[ids[2]]}. ")


def test_keyboard_turns_pages_and_asks(page, explorer, similarity):
    _, names, _ = similarity
    explorer.get_by_role("button", name="next cluster").focus()
    page.keyboard.press("ArrowRight")
    assert explorer.locator(".where").inner_text().startswith("group 2 ")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    pages = explorer.locator(".strip button").count()
    assert explorer.locator(".where").inner_text() == f"group {pages} of {pages}"
    explorer.locator(".pictures button").nth(1).focus()
    page.keyboard.press("Enter")
    assert numbers(explorer)[1] == "chosen"
    focused = page.evaluate("document.activeElement.title")  # the focus is not lost
    assert names.index(focused) == shown(explorer, names)[1]


def test_it_fits_a_narrow_page(page, explorer):
    page.set_viewport_size({"width": 420, "height": 800})
    assert explorer.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
