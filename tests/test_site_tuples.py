"""TupleExplorer on the site: choose each query, and find what mining gave it in Python."""

import numpy as np
import pytest

from imret.datasets import load_dataset
from imret.nets import create_embedder
from imret.training.mining import HardNegatives
from imret.training.tuples import TuplePool


@pytest.fixture(scope="module")
def mined():
    "The first draw of the page, and the names of its pictures."
    town = load_dataset("tinytown_train", size=8, split="all", progress=False)
    pool = TuplePool.from_town(town)
    net = create_embedder("efficientnet_lite0-gem")
    miner = HardNegatives(n=3, queries=1000, seed=1, image_size=160)
    return pool, miner.mine(net, pool, progress=False)


@pytest.fixture
def explorer(page, site):
    page.goto(f"{site}/explore/tuples.html")
    found = page.locator(".imret-tuples")
    found.locator(".draw button").first.wait_for()
    return found


def test_each_query_shows_what_was_mined(explorer, mined):
    pool, found = mined
    names = ["/".join(p.parts[-2:]) for p in pool.images]
    buttons = explorer.locator(".bar button")
    assert buttons.count() == 6
    for n in range(6):
        buttons.nth(n).click()
        assert buttons.nth(n).get_attribute("aria-pressed") == "true"
        q = names.index(buttons.nth(n).get_attribute("title"))
        row = int(np.flatnonzero(found.query == q)[0])
        draws = explorer.locator(".draw")
        assert draws.count() == 2
        first = draws.nth(0).locator("button")
        titles = [first.nth(k).get_attribute("title") for k in range(first.count())]
        assert titles[0] == f"query · {names[q]}, cluster {pool.clusters[q]}"
        p = found.positive[row]
        assert titles[1] == f"positive · {names[p]}, cluster {pool.clusters[p]}"
        for k, (i, d, s) in enumerate(
            zip(found.negatives[row], found.distances[row], found.scores[row], strict=True), 1
        ):
            wanted = f"negative {k} · distance {d:.3f} · score {s:.3f} · {names[i]}, cluster "
            assert titles[k + 1] == f"{wanted}{pool.clusters[i]}"
        before = {t.split(" · ")[-1] for t in titles[2:]}
        second = draws.nth(1).locator("button.negative")
        for k in range(second.count()):
            title = second.nth(k).get_attribute("title")
            assert (", new" in title) == (title.split(" · ")[-1] not in before)
    said = f"mean distance of all negatives {found.hardness:.3f}"
    assert said in explorer.locator(".draw h4").first.inner_text()


def test_keyboard_and_details(page, explorer):
    explorer.locator(".bar button").nth(3).focus()
    page.keyboard.press("Enter")
    assert explorer.locator(".bar button").nth(3).get_attribute("aria-pressed") == "true"
    picture = explorer.locator(".draw button").nth(2)
    picture.focus()
    page.keyboard.press("Enter")
    assert explorer.locator(".detail").inner_text() == picture.get_attribute("title")


def test_it_fits_a_narrow_page(page, explorer):
    page.set_viewport_size({"width": 420, "height": 800})
    assert explorer.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
