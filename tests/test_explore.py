"""What the explorer tells, against the evaluator; and odd sets, names and files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imret.core import DatasetError, GroundTruth, Ranking
from imret.datasets import RetrievalDataset, Tinytown, load_dataset
from imret.evaluation import judge, query_table
from imret.explore import RankingExplorer, TownExplorer, plot_results, spread, thumbnail
from imret.explore.ranking import _names

ODD = (
    "plain.png",
    "</script><b>.png",
    "NAME state.png",
    "größe 日本.png",
    "'quote\".png",
    "&amp.png",
)


@pytest.fixture
def odd(tmp_path):
    "Six pictures in a folder that cannot hold slashes, so odd names but one are files."
    names = [n.replace("/", "") for n in ODD]
    for n, name in enumerate(names):
        Image.new("RGB", (40 + n, 30), (40 * n, 99, 99)).save(tmp_path / name)
    paths = [tmp_path / n for n in names]
    truth = GroundTruth(easy=[[0], [1]], hard=[[2], []], junk=[[3], []])
    return RetrievalDataset("odd", paths, paths[:2], truth, [(5, 5, 20, 25), None])


def ranking(rows):
    return Ranking(rows, -np.arange(np.size(rows)).reshape(np.shape(rows)))


def test_the_state_is_what_the_evaluator_says(odd):
    ranked = ranking([[3, 1, 0, 5, 2, 4], [1, 0, 2, 3, 4, 5]])
    explorer = RankingExplorer(odd, ranked, queries=[0, 1], k=4)
    for protocol in ("easy", "medium", "hard"):
        kinds, table = judge(ranked, odd.truth, protocol), query_table(ranked, odd.truth, protocol)
        for q, query in enumerate(explorer.state["queries"]):
            assert query["kinds"][protocol] == "".join("JNP"[k + 1] for k in kinds[q])
            ap = table["ap"][q]
            wanted = "no positives under this protocol" if np.isnan(ap) else f"AP {ap:.3f} · "
            assert query["facts"][protocol].startswith(wanted)
    assert explorer.state["queries"][0]["box"] == [0.125, 0.1667, 0.375, 0.6667]
    assert explorer.state["queries"][1]["box"] is None


def test_a_page_with_odd_names_is_one_script_of_valid_json(odd, tmp_path):
    explorer = RankingExplorer(odd, ranking([[3, 1, 0, 5, 2, 4], [1, 0, 2, 3, 4, 5]]))
    explorer.to_html(tmp_path / "page.html", "<odd>")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1 and "<title>&lt;odd&gt;" in page
    state = json.loads(re.search(r"const state = (.*), name = ", page)[1].replace("<\\/", "</"))
    names = {i["name"].split("/")[-1] for i in state["state"]["images"]}
    assert names == {p.name for p in odd.images}


def test_cut_lists_and_empty_places(odd):
    ranked = Ranking([[0, -1, -1], [1, 2, -1]], [[1, -np.inf, -np.inf], [2, 1, -np.inf]])
    explorer = RankingExplorer(odd, ranked, queries=[0, 1])
    assert [len(q["results"]) for q in explorer.state["queries"]] == [1, 2]
    assert explorer.state["queries"][0]["kinds"]["medium"] == "P.."
    json.loads(json.dumps(explorer.state, allow_nan=False))  # -inf would be no JSON
    explorer.figure()


def test_no_result_at_all_still_draws(odd):
    plot_results(odd.queries[0], [], [])


def test_a_broken_file_is_a_grey_tile(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    assert thumbnail(tmp_path / "a.jpg", 20).size == (20, 20)


def test_spread_takes_worst_and_best():
    import pandas as pd

    values = pd.Series([0.5, np.nan, 0.1, 0.9, 0.3])
    assert spread(values, 3) == [2, 0, 3] or spread(values, 3) == [2, 4, 3]
    assert spread(values, 99) == [2, 4, 0, 3]
    assert spread(values, 0) == []


def test_names_of_queries_that_share_a_file_name():
    paths = [Path("a/query.jpg"), Path("b/query.jpg"), Path("b/other.jpg"), Path("b/other.jpg")]
    assert _names(paths) == ["a/query.jpg", "b/query.jpg", "other.jpg", "other.jpg"]


@pytest.fixture(scope="module")
def town():
    return load_dataset("tinytown")


@pytest.mark.parametrize(
    "queries, told", [(0, "queries=0"), (-2, "queries=-2"), ([], "empty"), ([0, 99], "query 99")]
)
def test_a_map_shows_queries_that_there_are(town, queries, told):
    with pytest.raises(DatasetError, match=told):
        TownExplorer(town, queries)


def test_a_map_needs_a_town_with_queries(odd):
    asked = object.__new__(Tinytown)  # a town, as the one to learn from, that asks nothing
    asked.name, asked.queries = "quiet", []
    for other in (odd, asked, "tinytown"):
        with pytest.raises(DatasetError, match=r"rendered town with queries.*load_dataset"):
            TownExplorer(other)
