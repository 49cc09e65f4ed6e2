"""The built site, read as files and opened in a browser: pages, links, colours, search, widgets.

What a single widget must do is tested in tests/test_site_widgets.py; here every one must appear."""

import functools
import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import docs
import pytest
from conftest import watch

PAGES = [str(Path(docs.plain(p)).with_suffix(".html")) for p in docs.pages()]
each_page = pytest.mark.parametrize("name", PAGES)
BACK = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(253, 253, 251)", "rgb(20, 24, 28)"  # --page in nbs/styles.css


class Reader(HTMLParser):
    "What a page offers, its ids, and what it asks for: links, pictures, scripts, styles."

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.asks = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key == "id":
                self.ids.add(value)
            elif key in ("href", "src") and value:
                self.asks.append(value)


@functools.cache
def read(path: Path) -> Reader:
    "A page, read once."
    return Reader(path)


def test_site_builds(build):
    assert not build, build


def test_every_notebook_has_its_page(built):
    found = {p.relative_to(built).as_posix() for p in built.rglob("*.html")}
    assert {p for p in found if not p.startswith("site_libs/")} == set(PAGES)


@each_page
def test_links(built, name):
    "Whatever a page links to inside the site is there, down to the anchor."
    page = built / name
    for ask in read(page).asks:
        parts = urlsplit(ask)
        assert not ask.startswith(docs.BASE), f"{ask} should be a relative link"
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        target = target / "index.html" if target.is_dir() else target
        assert target.is_relative_to(built.resolve()), f"{ask} leaves the site"
        assert target.exists(), f"{ask}: no such file in the site"
        if parts.fragment and target.suffix == ".html":
            anchor = unquote(parts.fragment)
            assert anchor in read(target).ids, f"{ask}: no such heading on that page"


def wait_for_widgets(page) -> int:
    "Wait until each widget has drawn itself, and say how many there are."
    live = page.locator(".imret-live")
    for i in range(live.count()):
        live.nth(i).locator("*").first.wait_for(state="attached", timeout=10_000)
        assert live.nth(i).bounding_box()["height"] > 10, "a widget without height"
    return live.count()


# The contrast (WCAG 2.2) of every text in the page with what is behind it; the worst few come back.
CONTRAST = """
() => {
  const rgba = c => { const n = c.match(/[\\d.]+/g).map(Number); return c.startsWith('color(srgb')
    ? [n[0]*255, n[1]*255, n[2]*255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i]*a[3] + b[i]*(1-a[3])).concat(1);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255;
    return v <= .04045 ? v/12.92 : ((v+.055)/1.055)**2.4; }); return .2126*r + .7152*g + .0722*b; };
  const known = new Map([[null, [255, 255, 255, 1]]]);
  const behind = e => { if (!known.has(e)) known.set(e,
      over(rgba(getComputedStyle(e).backgroundColor), behind(e.parentElement)));
    return known.get(e); };
  const found = [];
  for (const e of document.querySelectorAll('main *, nav *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility({opacityProperty: true}) || e.closest('script, style, .katex'))
      continue;
    const back = behind(e), front = over(rgba(getComputedStyle(e).color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const what = `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 40)}`;
    found.push([(a + .05) / (b + .05), what]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 5);
}
"""

LOOK = """
() => ({
  broken: [...document.images].filter(i => !(i.complete && i.naturalWidth))
    .map(i => i.src.slice(0, 99)),
  formulas: document.querySelectorAll('.math').length,
  drawn: document.querySelectorAll('.math .katex').length,
  unread: document.querySelectorAll('.katex-error').length,
  wide: document.documentElement.scrollWidth - innerWidth,
})
"""


@pytest.fixture(scope="module")
def visit(chrome, site) -> Iterator[Callable[[str], dict]]:
    """Open a page once, and keep what it shows in light and in dark for all tests that ask.

    One browser page goes from one to the next, as a reader does: style sheets and scripts are
    loaded once."""
    context = chrome.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    complaints = watch(page, site)

    @functools.cache
    def look(name: str) -> dict:
        complaints.clear()
        seen = {}
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            page.goto(f"{site}/{name}", wait_until="load")
            wait_for_widgets(page)
            seen[scheme] = page.evaluate(BACK), page.evaluate(CONTRAST)
        return seen | page.evaluate(LOOK) | {"complaints": list(complaints)}

    yield look
    context.close()


@each_page
def test_page(visit, name):
    "No complaint (see `page`); its pictures load, its formulas and widgets are drawn."
    seen = visit(name)
    assert not seen["complaints"], "\n".join(seen["complaints"])
    assert not seen["broken"], f"pictures that do not load: {seen['broken']}"
    undrawn = seen["formulas"] - seen["drawn"]
    assert not undrawn, f"{undrawn} of {seen['formulas']} formulas are not drawn"
    assert not seen["unread"], "a formula that KaTeX cannot read"
    assert seen["wide"] <= 0, f"the page is {seen['wide']} pixels wider than the window"


@each_page
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours(visit, name, scheme):
    "Our colours are in force, and every text can be read."
    back, worst = visit(name)[scheme]
    assert back == (LIGHT if scheme == "light" else DARK)
    assert worst and worst[0][0] >= 4.5, f"too little contrast: {worst}"


def test_theme_is_loaded(page, site):
    "The theme's own layout is there too, not only our colours: a style sheet cut short shows here."
    page.goto(f"{site}/core.html")
    display = "e => getComputedStyle(e).display"
    assert page.locator("#quarto-content").evaluate(display) == "grid"
    assert page.locator(".navbar-nav").first.evaluate(display) == "flex"
    assert "system-ui" in page.evaluate("getComputedStyle(document.body).fontFamily")


def test_dark_switch(page, site):
    "The switch turns the page dark, and the next page remembers."
    page.emulate_media(color_scheme="light")
    page.goto(f"{site}/index.html")
    page.locator(".quarto-color-scheme-toggle").first.click()
    page.wait_for_function(f"{BACK} === '{DARK}'")
    page.goto(f"{site}/core.html")
    assert page.evaluate(BACK) == DARK


def test_search(page, site):
    "Typing a name finds the page that explains it."
    page.goto(f"{site}/index.html")
    page.locator("#quarto-search input").fill("GroundTruth")
    result = page.locator(".smalldocs-search-results a").first
    result.wait_for(state="visible")
    result.click()
    page.wait_for_url("**/*.html*")
    assert "GroundTruth" in page.locator("main").inner_text()


def test_sidebar(page, site):
    "In the order of the course; a room's name leads to its own page, and no number shows."
    page.goto(f"{site}/index.html")
    links = page.locator("#quarto-sidebar a.sidebar-link")
    hrefs = links.evaluate_all("all => all.map(a => a.getAttribute('href') ?? a.innerText)")
    assert [href.removeprefix("./") for href in hrefs] == PAGES, "a room without index.ipynb?"
    assert not any(name[:1].isdigit() for href in hrefs for name in href.split("/"))


def test_search_index(built):
    "Every page can be found."
    entries = json.loads((built / "search.json").read_text(encoding="utf-8"))
    assert set(PAGES) <= {entry["href"].split("#")[0] for entry in entries}
