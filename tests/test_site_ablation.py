"""The explorer of ablations on the site: choose, and find the table and queries of Python."""

import pytest

from imret.ablation import Ablation
from imret.datasets import data_root, load_dataset
from imret.explore import AblationExplorer

PAGE = "explore/ablation.html"
AXES = {"pooling": ["gem", "mac", "spoc"], "dimension": [80, 320, "none"]}


@pytest.fixture(scope="module")
def python():
    "What the page shows, computed here."
    given = {"image_size": 224, "protocols": ["medium", "hard"]}
    ablation = Ablation(load_dataset("photos"), AXES, None, data_root() / "cache", **given)
    ablation.run(progress=False)
    return AblationExplorer(ablation, {"dimension": 320}, "hard")


@pytest.fixture
def explorer(page, site):
    page.goto(f"{site}/{PAGE}")
    found = page.locator(".imret-ablation")
    found.locator(".option").first.wait_for()
    return found


def said(rows):
    "Rows of the table as the page says them."
    out = []
    for r in rows.itertuples():
        text = f"{r.pooling}, {r.dimension}: mAP {r.mAP:.3f} [{r.low:.3f}, {r.high:.3f}], "
        gap = f"{r.difference:+.3f} [{r.difference_low:+.3f}, {r.difference_high:+.3f}]"
        decided = "gain" if r.difference_low > 0 else "loss" if r.difference_high < 0 else ""
        change = f"difference {gap}, {decided or 'undecided'}"
        out.append(text + ("baseline" if r.difference != r.difference else change))
    return out


def shown(explorer):
    return [r.get_attribute("aria-label") for r in explorer.locator(".option").all()]


def button(explorer, name):
    return explorer.locator(".axis").get_by_role("button", name=name, exact=True)


def test_bars_by_protocol_axes_and_order(explorer, python):
    assert shown(explorer) == said(python.rows)
    for protocol in ("medium", "hard"):
        button(explorer, protocol).click()
        python.protocol = protocol
        for by in ("pooling", "", "dimension"):
            explorer.get_by_label("order").select_option(by)
            python.by = by
            assert shown(explorer) == said(python.rows)
    button(explorer, "mac").click()
    button(explorer, "none").click()
    python.shown = [[0, 2], [0, 1]]
    assert shown(explorer) == said(python.rows) and len(shown(explorer)) == 4
    button(explorer, "gem").click()
    button(explorer, "spoc").click()  # the last one stays
    assert button(explorer, "spoc").get_attribute("aria-pressed") == "true"
    python.shown = [[2], [0, 1]]
    assert shown(explorer) == said(python.rows)
    python.shown = [[0, 1, 2]] * 2


def test_bars_are_as_long_as_their_numbers(explorer, python):
    "The widths of two bars of a chart are as their numbers."
    for chart, column in ((0, "mAP"), (1, "difference")):
        pairs = []
        for n, row in enumerate(python.rows.itertuples()):
            bar = explorer.locator(".option").nth(n).locator(".track").nth(chart).locator(".bar")
            value = getattr(row, column)
            if value == value:
                pairs.append((bar.bounding_box()["width"], abs(value)))
        unit = max(pairs)[0] / max(pairs)[1]
        assert all(abs(width - max(2, unit * value)) < 1.5 for width, value in pairs)


def test_a_bar_leads_to_its_queries(explorer, python):
    ablation = python.ablation
    for cell in (("mac", 80), ("spoc", "none")):
        row = explorer.locator(f".option[aria-label^='{cell[0]}, {cell[1]}:']")
        row.click()
        assert row.get_attribute("aria-pressed") == "true"
        title = explorer.locator(".words").inner_text()
        mean = ablation.evaluations[cell]["hard"].summary["mAP"]
        assert title.startswith(f"{cell[0]}, {cell[1]} against gem, 80: mAP ")
        assert f"→ {mean:.3f}, difference" in title
        facts = explorer.locator(".query p").all_inner_texts()
        want = [
            f"AP {r.baseline:.3f} → {r.cell:.3f} ({r.difference:+.3f}) · query {r.query}, {r.group}"
            for r in ablation.changed(cell, "hard", n=2).itertuples()
        ]
        assert facts == want
        ranking = ablation.evaluations[cell]["hard"].ranking
        lists = explorer.locator(".query .list")
        for n, query in enumerate(ablation.changed(cell, "hard", n=2)["query"]):
            titles = [s.get_attribute("title") for s in lists.nth(2 * n + 1).locator("span").all()]
            paths = [ablation.dataset.images[i] for i in ranking.ids[query, :5]]
            assert [t.split(", ")[-1] for t in titles] == ["/".join(p.parts[-2:]) for p in paths]
    explorer.locator(".option.baseline").click()
    assert "is the baseline" in explorer.locator(".words").inner_text()


def test_keyboard_opens_bars(page, explorer):
    rows = explorer.locator(".option")
    rows.first.focus()
    for key, at in (("ArrowUp", 0), ("ArrowDown", 1), ("End", 8), ("ArrowUp", 7), ("Home", 0)):
        page.keyboard.press(key)
        assert rows.nth(at).evaluate("e => e === document.activeElement")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert rows.nth(2).get_attribute("aria-pressed") == "true"
    assert explorer.locator(".words").inner_text().startswith("gem, none against gem, 80")


def test_on_the_page_of_ablations(page, site):
    page.goto(f"{site}/ablation.html")
    explorer = page.locator(".imret-ablation")
    explorer.locator(".option").first.wait_for()
    name = explorer.locator(".option").last.get_attribute("aria-label").split(":")[0]
    explorer.locator(".option").last.click()
    assert explorer.locator(".words").inner_text().startswith(f"{name} against gem, none, 128")
    assert explorer.locator(".query").count() >= 1


def test_it_fits_a_narrow_page(page, explorer):
    page.set_viewport_size({"width": 420, "height": 800})
    assert explorer.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    bars = explorer.locator(".bars")
    assert bars.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
