"""The threshold explorer on the site: slide it, and find the counts that Python makes."""

import numpy as np
import pytest

from imret.core import l2_normalize
from imret.datasets import data_root, load_dataset
from imret.evaluation import threshold_table
from imret.explore import ThresholdExplorer, thumbnail
from imret.features import extract
from imret.nets import create_embedder

PAGE = "explore/threshold.html"


@pytest.fixture(scope="module")
def tables():
    "Python's own counts, for both models of the page."
    photos, net = load_dataset("photos"), create_embedder("efficientnet_lite0-gem")
    given = {"image_size": 224, "cache_dir": data_root() / "cache", "progress": False}
    vectors = extract(net, photos.images, **given)
    tiny = [np.asarray(thumbnail(p, 64).resize((8, 8)), np.float32).ravel() for p in photos.images]
    pixels = l2_normalize(np.array([t - t.mean() for t in tiny]))
    return [threshold_table(v @ v.T, photos.labels) for v in (vectors, pixels)]


@pytest.fixture
def explorer(page, site):
    page.goto(f"{site}/{PAGE}")
    found = page.locator(".imret-threshold")
    found.locator("tbody tr").first.wait_for()
    return found


def cells(explorer, row):
    return explorer.locator("tbody tr").nth(row).locator("td").all_inner_texts()


def wanted(row):
    "A row of the page's table, from Python's."
    shares = ["–" if np.isnan(row.precision) else f"{row.precision:.3f}"]
    shares += [f"{row.recall:.3f}", f"{row.f1:.3f}"]
    counts = [f"{int(n):,}" for n in (row.same, row.missed, row.unrelated)]
    return [*shares, *counts, f"{row.fpr:.3%}"]


def test_every_number_at_many_thresholds(explorer, tables):
    slider = explorer.get_by_role("slider", name="threshold")
    for step in (0, 37, 50, 60, 73, 82, 99, 100):
        slider.fill(str(step))
        assert explorer.locator("output").inner_text() == f"{step / 100:.2f}"
        for n, table in enumerate(tables):
            assert cells(explorer, n) == wanted(table.loc[step])


def test_three_nets_in_the_tutorial(page, site):
    clips = load_dataset("tinytown_clips")
    images, origin = clips.images[::4], clips.labels[::4]
    page.goto(f"{site}/tutorials/choosing_a_threshold.html")
    explorer = page.locator(".imret-threshold")
    explorer.locator("tbody tr").first.wait_for()
    names = [b.inner_text().strip() for b in explorer.locator("tbody button").all()]
    assert len(names) == 3
    for n, name in enumerate(names):
        given = {"image_size": 224, "cache_dir": data_root() / "cache", "progress": False}
        vectors = extract(create_embedder(f"{name}-gem"), images, **given)
        table = threshold_table(vectors @ vectors.T, origin)
        for step in (50, 68, 91):
            explorer.get_by_role("slider", name="threshold").fill(str(step))
            assert cells(explorer, n) == wanted(table.loc[step])


def test_keyboard_slides_and_chooses_the_model(page, explorer, tables):
    slider = explorer.get_by_role("slider", name="threshold")
    slider.fill("60")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert cells(explorer, 0) == wanted(tables[0].loc[61])
    second = explorer.locator("tbody button").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    assert second.get_attribute("aria-pressed") == "true"
    words = explorer.locator(".words").inner_text()
    assert words.startswith("8 × 8 pixels, from 0.61 on: ")
    assert f"{tables[1].same[61]:,} of " in words


def test_the_border_is_on_the_right_sides(explorer):
    slider = explorer.get_by_role("slider", name="threshold")
    for step in (40, 55, 70):
        slider.fill(str(step))
        over, under = (
            [
                float(t)
                for t in explorer.locator(".pairs").nth(n).locator("figure").all_inner_texts()
            ]
            for n in (0, 1)
        )
        assert over and under
        assert over == sorted(over) and min(over) >= step / 100 - 5e-4
        assert under == sorted(under)[::-1] and max(under) < step / 100 + 5e-4
        assert explorer.locator(".pair img").first.evaluate("e => e.naturalWidth") > 20


def test_dragging_the_scores_moves_the_slider(page, explorer, tables):
    chart = explorer.locator(".scores svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 50)
    page.mouse.up()
    step = round(100 * (0.8 * 340 - 28) / (340 - 28 - 10))
    assert abs(int(explorer.get_by_role("slider", name="threshold").input_value()) - step) <= 1
    explorer.get_by_role("slider", name="threshold").fill("82")
    assert cells(explorer, 0) == wanted(tables[0].loc[82])


@pytest.mark.parametrize("name", [PAGE, "tutorials/choosing_a_threshold.html"])
def test_the_whole_table_is_seen(page, site, name):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{site}/{name}")
    table = page.locator(".imret-threshold .scroll")
    table.locator("tbody tr").first.wait_for()
    page.get_by_role("slider", name="threshold").fill("20")  # the longest numbers
    assert table.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_wide_content_stays_inside_a_narrow_page(page, explorer):
    page.set_viewport_size({"width": 420, "height": 800})
    room = explorer.bounding_box()["width"]
    assert explorer.evaluate("e => e.scrollWidth") <= room + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_a_page_of_its_own_in_both_colours(chrome, tmp_path, scheme):
    rng = np.random.default_rng(0)
    vectors = l2_normalize(rng.normal(size=(6, 4)))
    paths = [tmp_path / f"</script>{n}.png".replace("/", "") for n in range(6)]  # grey tiles
    explorer = ThresholdExplorer(
        paths, vectors @ vectors.T, list("aabbcc"), thresholds=[-0.5, 0.125]
    )
    explorer.to_html(tmp_path / "page.html")
    context = chrome.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f"file://{tmp_path}/page.html")
    page.locator(".imret-threshold tbody td").first.wait_for()
    page.get_by_role("slider", name="threshold").fill("1")
    assert page.locator("output").inner_text() == "0.125"
    text, ground = page.evaluate(
        "[getComputedStyle(document.querySelector('.imret-threshold td')).color,"
        " getComputedStyle(document.documentElement).colorScheme]"
    )
    assert "dark" in ground
    assert (text == "rgb(255, 255, 255)") == (scheme == "dark")
    context.close()
