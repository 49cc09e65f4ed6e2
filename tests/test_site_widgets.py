"""Each widget on the site: change its input, and find on the page what Python computes."""

import pytest

from imret.core import Ranking
from imret.datasets import data_root, load_dataset
from imret.evaluation import query_table
from imret.features import extract
from imret.nets import create_embedder

# page, longest side in pixels that its net saw
EXPLORERS = [
    ("index.html", 320),
    ("explore/ranking.html", 224),
    ("tutorials/what_makes_a_ranking_good.html", 224),
]


@pytest.fixture(scope="module")
def rankings():
    "The ranking of `photos` by size of the net's image, by matrix product and full sort."
    photos, net = load_dataset("photos"), create_embedder("efficientnet_lite0-gem")

    def ranking(size):
        given = {"image_size": size, "cache_dir": data_root() / "cache", "progress": False}
        database = extract(net, photos.images, **given)
        queries = extract(net, photos.queries, photos.boxes, **given)
        return Ranking.from_scores(queries @ database.T)

    return photos, {size: ranking(size) for size in sorted({s for _, s in EXPLORERS})}


@pytest.mark.parametrize("name, size", EXPLORERS)
def test_ranking_explorer(page, site, rankings, name, size):
    photos, by_size = rankings
    ranking = by_size[size]
    page.goto(f"{site}/{name}")
    explorer = page.locator(".imret-ranking")
    explorer.locator(".results button").first.wait_for()
    buttons = explorer.locator(".queries button")
    assert buttons.count() >= 5
    for protocol in photos.truth.protocols:
        explorer.get_by_role("button", name=protocol, exact=True).click()
        table = query_table(ranking, photos.truth, protocol)
        for n in range(buttons.count()):
            buttons.nth(n).click()
            facts = explorer.locator(".facts").inner_text()
            name = buttons.nth(n).get_attribute("title")
            same = [q for q, p in enumerate(photos.queries) if p.name == name]
            assert any(f"AP {table['ap'][q]:.3f} · " in facts for q in same), (protocol, facts)
            missed = [table["first_miss"][q] for q in same]
            assert any(f"first miss: rank {m}" in facts for m in missed), (protocol, facts)


def test_the_ranking_shown_is_the_ranking(page, site, rankings):
    photos, by_size = rankings
    page.goto(f"{site}/explore/ranking.html")
    explorer = page.locator(".imret-ranking")
    results = explorer.locator(".results button")
    results.first.wait_for()
    explorer.locator(".queries button").last.click()
    name = explorer.locator(".queries button").last.get_attribute("title")
    shown = [results.nth(n).get_attribute("title") for n in range(results.count())]
    same = [q for q, p in enumerate(photos.queries) if p.name == name]

    def agrees(q):
        wanted = ["/".join(photos.images[i].parts[-2:]) for i in by_size[224].ids[q, : len(shown)]]
        scores = by_size[224].scores[q, : len(shown)]
        return all(
            f" {w} " in t and f"score {s:.3f}" in t
            for w, s, t in zip(wanted, scores, shown, strict=True)
        )

    assert any(agrees(q) for q in same), shown
    results.nth(2).click()
    assert explorer.locator(".detail").inner_text() == shown[2].strip()


def test_box_stands_on_the_query(page, site, rankings):
    photos, _ = rankings
    page.goto(f"{site}/explore/ranking.html")
    explorer = page.locator(".imret-ranking")
    picture, box = explorer.locator(".query img"), explorer.locator(".query i")
    picture.wait_for()
    outer, inner = picture.bounding_box(), box.bounding_box()
    assert outer["x"] - 1 <= inner["x"] and outer["y"] - 1 <= inner["y"]
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 1
    assert inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1


def test_keyboard_reaches_every_choice(page, site):
    page.goto(f"{site}/explore/ranking.html")
    second = page.locator(".imret-ranking .queries button").nth(1)
    second.wait_for()
    second.focus()
    page.keyboard.press("Enter")
    assert second.get_attribute("aria-pressed") == "true"


def test_squares(page, site):
    page.goto(f"{site}/explore/live.html")
    slider = page.get_by_label("number to square")
    slider.focus()
    for n in range(4, 8):
        page.keyboard.press("ArrowRight")
        assert page.get_by_text(f"{n} squared is {n * n}").is_visible()


def test_every_widget_is_alive(page, site, built):
    "A widget that failed to start still shows its fallback; none may."
    for path in sorted(built.rglob("*.html")):
        if "imret-live" in path.read_text(encoding="utf-8"):
            page.goto(f"{site}/{path.relative_to(built)}")
            page.wait_for_function(
                "[...document.querySelectorAll('.imret-live')].every(e => 'alive' in e.dataset)"
            )
