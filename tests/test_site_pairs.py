"""The pairs of the pooling tutorial on the site: choose, and find the cosines that Python gets."""

import re

import pytest
import torch
import torch.nn.functional as F

from imret.datasets import load_dataset
from imret.features import read_image, resize_image
from imret.nets import create_embedder, create_pooling

PAGE = "tutorials/what_pooling_sees.html"
PAIRS = {
    "the same gate, close": ("lm0060/query.jpg", "lm0060/00.jpg"),
    "two different towers": ("lm0024/11.jpg", "lm0066/02.jpg"),
}
POOLS = {
    "spoc": create_pooling("spoc"),
    "gem:p=6": create_pooling("gem", p=6.0),
    "mac": create_pooling("mac"),
    "rmac": create_pooling("rmac"),
}


@pytest.fixture(scope="module")
def cosines():
    "Python's own, by pair and pooling."
    town, net = load_dataset("tinytown"), create_embedder("efficientnet_lite0-gem")

    @torch.inference_mode()
    def vectors(file):
        pixels = torch.from_numpy(resize_image(read_image(town.folder / file), 288)[None])
        fmap = net.backbone(net.preprocess(pixels))
        return {name: F.normalize(pool(fmap), dim=-1)[0] for name, pool in POOLS.items()}

    both = {pair: [vectors(f) for f in files] for pair, files in PAIRS.items()}
    return {
        (pair, name): float(a[name] @ b[name]) for pair, (a, b) in both.items() for name in POOLS
    }


@pytest.fixture
def explorer(page, site):
    page.goto(f"{site}/{PAGE}")
    found = page.locator(".imret-pairs")
    found.locator("canvas").first.wait_for()
    return found


def shown(explorer):
    return float(re.search(r"cosine (-?[\d.]+)\.", explorer.locator("p").inner_text())[1])


def test_every_choice_shows_its_cosine(explorer, cosines):
    for (pair, name), value in cosines.items():
        explorer.get_by_role("button", name=pair, exact=True).click()
        explorer.get_by_role("button", name=name, exact=True).click()
        assert abs(shown(explorer) - value) < 0.006, (pair, name)
        row = explorer.locator(".bars span", has_text=re.compile(f"^{re.escape(name)}$"))
        assert row.count() == 1
    assert explorer.locator("button[aria-pressed=true]").all_inner_texts() == [pair, name]


def test_another_pooling_paints_another_heatmap(explorer):
    paint = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    pictures = []
    for name in ("spoc", "mac"):
        explorer.get_by_role("button", name=name, exact=True).click()
        canvas = explorer.locator("canvas").first
        pictures.append(canvas.evaluate(paint))
    assert len(pictures[0]) == len(pictures[1]) > 100 and pictures[0] != pictures[1]


def test_keyboard(page, explorer):
    button = explorer.get_by_role("button", name="rmac", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert explorer.locator("p").inner_text().startswith("rmac, ")
