"""The site and a browser, for every test that looks at pages.

`site` is the address of the built site, `page` an empty browser page that objects, at the test's
end, to script errors, console errors and requests that leave the site."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import docs
import filelock
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Threads that wait must not spin: on two busy cores that costs more than the work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_docs"
KATEX = SITE / "site_libs" / "katex"
BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", help="I/N: of tests with a name, such as a page, the I-th N-th")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    "Keep a share of the tests that have a parameter `name`; the others are in share 0."
    if config.getoption("share"):
        share, shares = map(int, config.getoption("share").split("/"))

        def mine(item: pytest.Item) -> bool:
            name = getattr(getattr(item, "callspec", None), "params", {}).get("name")
            return (zlib.crc32(name.encode()) % shares if name else 0) == share

        items[:] = filter(mine, items)


def is_stale() -> bool:
    "Whether something the site is made of is newer than the site."
    if not (SITE / "index.html").exists():
        return True
    made_of = [ROOT / "settings.ini", ROOT / "tools/docs.py", ROOT / "nbs/_quarto.yml"]
    for pattern in ("nbs/**/*.ipynb", "nbs/*.css", "imret/**/*.py"):
        made_of += ROOT.glob(pattern)
    made_of = [p for p in made_of if p.name != "_modidx.py"]  # building writes it
    return max(p.stat().st_mtime for p in made_of) > (SITE / "index.html").stat().st_mtime


@pytest.fixture(scope="session")
def build() -> str:
    "What went wrong when the site was built; built anew only if something in it has changed."
    with filelock.FileLock(ROOT / ".site.lock"):  # by one process, while others wait
        if not is_stale():
            return ""
        command = [sys.executable, "tools/docs.py"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return (done.stdout + done.stderr)[-6000:] if done.returncode else ""


@pytest.fixture(scope="session")
def built(build) -> Path:
    "The folder of the site. Without one a test is skipped: `test_site_builds` has failed by then."
    if build:
        pytest.skip("the site did not build")
    return SITE


@pytest.fixture(scope="session")
def site(built) -> Iterator[str]:
    "The address under which the site is served; `{site}/core.html` is a page."

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Silent, directory=str(built))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def chrome() -> Iterator[Browser]:
    "A headless Chromium. Without one the test is skipped, but never in CI."
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        message = "no Chromium on PATH: `apt install chromium` to test the site"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


def watch(page: Page, site: str) -> list[str]:
    "A list that fills with the page's complaints."
    complaints = []

    # formulas may come from the CDN where npm is missing, but not in CI
    allowed = (site,) if KATEX.exists() or os.environ.get("CI") else (site, docs.KATEX_CDN)

    def outside(request):
        if request.url.startswith("http") and not request.url.startswith(allowed):
            complaints.append(f"request outside the site: {request.url}")

    def console(message):
        if message.type == "error":
            complaints.append(f"console error: {message.text} {message.location['url']}")

    page.on("pageerror", lambda error: complaints.append(f"script error: {error}"))
    page.on("console", console)
    page.on("request", outside)
    return complaints


@pytest.fixture
def page(chrome, site) -> Iterator[Page]:
    "A new page; its complaints fail the test that used it."
    context = chrome.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    complaints = watch(page, site)
    yield page
    context.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def one_thread() -> Iterator[None]:
    "torch computes on one core: the same sums, and steady times on a busy machine."
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
