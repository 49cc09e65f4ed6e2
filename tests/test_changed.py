"""`make test-changed` leaves nothing out that a change can touch."""

import changed
import pytest

NOTEBOOK = "tests/test_notebooks.py::test_notebook[{}]"


@pytest.fixture
def chosen(monkeypatch):
    "The tests that are chosen where these files have changed."

    def choose(*files: str) -> list[str]:
        monkeypatch.setattr(changed, "changed_files", lambda base: set(files))
        return changed.selection()

    return choose


def test_own_notebook_and_tests(chosen):
    "A loss: its tests, its notebook and page; no metric, no dataset."
    found = chosen("nbs/75_training/05_order.ipynb", "imret/training/order.py")
    assert "tests/test_losses.py" in found
    assert NOTEBOOK.format("75_training/05_order.ipynb") in found
    assert "tests/test_site.py::test_page[training/order.html]" in found
    assert not {"tests/test_metrics.py", "tests/test_datasets.py"} & set(found)


@pytest.mark.parametrize("module", changed.modules())
def test_each_module_has_tests(chosen, module):
    "Every module is shown in a notebook, or tested in a file, that is chosen when it changes."
    path = changed.modules()[module]
    if path.stem == "__init__":
        return
    found = chosen(str(path.relative_to(changed.ROOT)))
    notebooks = (changed.ROOT / "nbs").rglob("*.ipynb")
    own = [
        p
        for p in notebooks
        if f"imret/{path.relative_to(changed.house.LIBRARY)}" == changed.exported_by(p)
    ]
    assert NOTEBOOK.format(own[0].relative_to(changed.ROOT / "nbs")) in found


def test_what_is_built_upon(chosen):
    "The ranking's type touches nearly all; a widget's page its browser tests; settings all."
    found = chosen("imret/core.py")
    assert {"tests/test_metrics.py", "tests/test_engine.py", "tests/test_search.py"} <= set(found)
    assert "tests/test_site_town.py" in chosen("nbs/80_explore/30_town.ipynb")
    assert chosen("settings.ini") == []
    recipes = NOTEBOOK.format("75_training/40_recipes.ipynb")
    assert recipes in chosen("imret/data/recipes/gem_contrastive.toml")
    assert chosen("benchmarks/search.py") == changed.ALWAYS
