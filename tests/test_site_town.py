"""TownExplorer on the site: choose queries and photos, and find Python's own truth on the page."""

import pytest

from imret.datasets import load_dataset


@pytest.fixture(scope="module")
def town():
    return load_dataset("tinytown")


@pytest.fixture
def explorer(page, site):
    page.goto(f"{site}/explore/town.html")
    explorer = page.locator(".imret-town")
    explorer.locator(".taken button").first.wait_for()
    return explorer


def test_each_query_shows_its_truth(explorer, town):
    places = explorer.locator(".map .asked")
    assert places.count() >= 5
    for n in range(places.count()):
        places.nth(n).click()
        name = places.nth(n).get_attribute("aria-label").split()[1].strip(",")
        q = [p.parent.name for p in town.queries].index(name)
        assert f"query {name}" in explorer.locator(".asking + div").inner_text()
        for kind in ("easy", "hard", "junk"):
            ids = getattr(town.truth, kind)[q]
            shown = explorer.locator(f".taken.{kind} button")
            assert shown.count() == len(ids), (name, kind)
            titles = [shown.nth(k).get_attribute("title") for k in range(shown.count())]
            place = town.place_of(town.queries[q])
            for i in ids:
                r = place.relation("query.jpg", town.images[i].name)
                wanted = f"{town.images[i].name} · {kind} · overlap {r.overlap:.2f} · "
                assert any(t.startswith(wanted) for t in titles), (wanted, titles)


def test_a_camera_and_its_photo_are_one_choice(explorer):
    cameras = explorer.locator(".plan [role=button]")
    cameras.nth(1).focus()
    explorer.page.keyboard.press("Enter")
    chosen = explorer.locator(".taken button[aria-pressed=true]")
    assert chosen.count() == 1
    assert explorer.locator(".detail").inner_text() == chosen.get_attribute("title")
    explorer.locator(".taken button").last.click()
    last = explorer.locator(".taken button").last
    assert last.get_attribute("aria-pressed") == "true"
    assert explorer.locator(".detail").inner_text() == last.get_attribute("title")
