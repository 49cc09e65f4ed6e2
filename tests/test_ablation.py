"""Ablation on a set of eight grey squares, with an extraction that is made up and counted."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

import imret.features.descriptor
from imret.ablation import AXES, Ablation, plot_ablation, register_axis
from imret.core import GroundTruth, Ranking, SpecError, StoreError, TruthError
from imret.datasets import LabelledImages, RetrievalDataset
from imret.features import LearnedWhitening, PCAWhitening, WhiteningError

D = 6


@pytest.fixture
def sets(tmp_path):
    "What is judged: 8 images, 4 queries in 2 groups. What is learned from: 20 others, 5 labels."
    files = [tmp_path / f"{i}.png" for i in range(32)]
    for i, file in enumerate(files):
        Image.new("L", (4, 4), i).save(file)
    positive = [[0, 1], [2, 3], [4, 5], [6, 7]]
    truth = GroundTruth(positive=positive, groups=["a", "a", "b", "b"])
    judged = RetrievalDataset("squares", files[:8], files[8:12], truth)
    return judged, LabelledImages("others", files[12:], [i % 5 for i in range(20)])


@pytest.fixture
def calls(monkeypatch):
    "Vectors that depend on net, image and settings; a list of what was asked for."
    asked = []

    def fake(net, images, boxes=None, image_size=320, **options):
        asked.append((net, len(images), image_size, options["scales"]))
        rows = []
        for image in images:
            number = int(image.stem)
            number = (number - 8) * 2 if 8 <= number < 12 else number
            seed = [number // 2, len(net), image_size]
            noise = np.random.default_rng([int(image.stem), len(net)]).normal(size=D)
            rows.append(np.random.default_rng(seed).normal(size=D) + 0.8 * noise)
        rows = np.array(rows, np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(imret.features.descriptor, "describe", fake)
    monkeypatch.setattr(imret.features.descriptor, "make_net", lambda spec: spec.net)
    return asked


@pytest.fixture
def own_axes(monkeypatch):
    "Axes registered in a test are gone after it."
    monkeypatch.setattr(AXES, "_things", dict(AXES._things))


GRID = {"dimension": [None, 3], "pooling": ["gem", "mac"], "whitening": [None, "pca", "learned"]}


def test_product_in_the_order_given(sets, calls):
    table = Ablation(sets[0], GRID, fit_on=sets[1]).run(progress=False)
    got = list(table[list(GRID)].itertuples(index=False, name=None))
    want = [
        (d, p, w) for d in ("none", 3) for p in ("gem", "mac") for w in ("none", "pca", "learned")
    ]
    assert got == want
    assert table["D"].tolist() == [D] * 6 + [3] * 6
    assert (table["bytes"] == 4 * table["D"]).all()
    assert (table["protocol"] == "all").all()


def test_each_extraction_and_fit_once(sets, calls, monkeypatch):
    fits = []
    for kind in (PCAWhitening, LearnedWhitening):
        real = kind.fit
        monkeypatch.setattr(
            kind, "fit", lambda self, *a, real=real, **k: fits.append(self) or real(self, *a, **k)
        )
    Ablation(sets[0], GRID, fit_on=sets[1]).run(progress=False)
    assert len(calls) == 2 * 3 and len(set(calls)) == 6  # two nets; database, queries, to learn
    assert len(fits) == 2 * 2


def test_nothing_is_learned_from_where_nothing_learns(sets, calls):
    Ablation(sets[0], {"pooling": ["gem"]}, fit_on=sets[1]).run(progress=False)
    assert [n for _, n, _, _ in calls] == [8, 4]


def test_extract_axes_reach_extract(sets, calls):
    axes = {"image_size": [64, 96], "scales": [[1], (1, 0.5)]}
    table = Ablation(sets[0], axes, backbone="anet").run(progress=False)
    assert {c[0] for c in calls} == {"anet-gem"}
    assert {c[2:] for c in calls} == {(s, k) for s in (64, 96) for k in ((1.0,), (1.0, 0.5))}
    assert table["scales"].tolist() == ["1", "1 0.5"] * 2


def test_protocol_axes_reach_extraction(sets, calls, monkeypatch):
    real, asked = imret.features.descriptor.describe, []

    def listening(net, images, boxes=None, *size, **options):
        asked.append({k: options.get(k) for k in ("scales", "power", "flip", "crop", "resize")})
        return real(net, images, boxes, *size, **options)

    monkeypatch.setattr(imret.features.descriptor, "describe", listening)
    axes = {
        "scales": ["three", (1, 0.5)],
        "power": ["net", "plain", 3],
        "flip": [False, True],
        "crop": ["after", "none"],
        "resize": ["square"],
    }
    table = Ablation(sets[0], axes, backbone="anet").run(progress=False)
    ways = {tuple(way.values()) for way in asked}
    powers = {"net": None, "plain": 1.0, 3.0: 3.0}
    assert ways == {
        (scales, powers[power], flip, crop, "square")
        for scales in ("three", (1.0, 0.5))
        for power in powers
        for flip in (False, True)
        for crop in ("after", "none")
    }
    cells = set(table[list(axes)].itertuples(index=False, name=None))
    assert len(cells) == 24 and ("three", "net", True, "none", "square") in cells


@pytest.mark.parametrize(
    "axes, said",
    [
        ({"scales": ["two"]}, "half_more, one, rmac, three"),
        ({"power": ["strong"]}, "plain, net or a number"),
        ({"power": [0]}, "plain, net or a number"),
        ({"power": [1, "plain"]}, "twice"),
        ({"flip": [1]}, "true or false"),
        ({"crop": ["first"]}, "after, before, none, same_scale"),
        ({"resize": ["none"]}, "long, square"),
        ({"whitening": ["pca:power=much"]}, "a number from 0"),
    ],
)
def test_wrong_values_of_protocol_axes(sets, axes, said):
    with pytest.raises(SpecError, match=said):
        Ablation(sets[0], axes, fit_on=sets[1])


def test_baseline(sets, calls):
    ablation = Ablation(sets[0], GRID, {"pooling": "mac", "dimension": 3}, fit_on=sets[1])
    table = ablation.run(progress=False)
    assert ablation.baseline == (3, "mac", "none")
    [row] = table.index[table["p"].isna()]
    assert tuple(table.loc[row, list(GRID)]) == ablation.baseline
    gaps = table["mAP"] - table["mAP"][row]
    assert np.allclose(table["difference"].fillna(0), gaps)
    rest = table.dropna()
    assert (rest["difference_low"] <= rest["difference_high"]).all()
    assert Ablation(sets[0], GRID, fit_on=sets[1]).baseline == ("none", "gem", "none")


def test_twice_the_same(sets, calls):
    runs = [Ablation(sets[0], GRID, fit_on=sets[1]).run(progress=False) for _ in range(2)]
    pd.testing.assert_frame_equal(*runs)


def test_changed_leads_to_queries(sets, calls):
    ablation = Ablation(sets[0], GRID, fit_on=sets[1])
    ablation.run(progress=False)
    cell = {"pooling": "mac", "dimension": 3}
    rows = ablation.changed(cell, "all", n=2)
    assert set(rows["group"]) <= {"a", "b"} and rows["query"].is_unique
    moved = ablation.compare(cell).per_query["difference"]
    assert len(rows) == min(2, (moved > 1e-12).sum()) + min(2, (moved < -1e-12).sum()) > 0
    assert rows["difference"].min() == moved.min() < 0
    evaluation = ablation.evaluations[ablation.find(cell)]["all"]
    aps = evaluation.per_query.set_index("query")["ap"]
    assert (rows["cell"].to_numpy() == aps[rows["query"]].to_numpy()).all()
    assert ablation.changed(ablation.baseline).empty


def test_guard(sets, calls, tmp_path):
    judged, others = sets
    with pytest.raises(SpecError, match="give fit_on="):
        Ablation(judged, GRID)
    with pytest.raises(WhiteningError, match="allow_test_fit"):
        Ablation(judged, GRID, fit_on=judged)
    renamed = LabelledImages("innocent", judged.images, range(8))
    with pytest.raises(WhiteningError, match="allow_test_fit"):
        Ablation(judged, GRID, fit_on=renamed)
    with pytest.warns(UserWarning, match="no estimate"):
        Ablation(judged, {"whitening": ["pca"]}, fit_on=judged, allow_test_fit=True)
    Ablation(judged, {"whitening": [None]}, fit_on=judged)  # nothing is fitted
    with pytest.raises(SpecError, match="not a str"):
        Ablation(judged, GRID, fit_on="others")
    assert not calls


def test_pca_keeps_what_is_spanned(sets, calls):
    few = LabelledImages("few", sets[1].images[:4], range(4))
    table = Ablation(sets[0], {"whitening": ["none", "pca"]}, fit_on=few).run(progress=False)
    assert table["D"].tolist() == [D, 3]


def test_learned_needs_labels(sets, calls):
    bare = RetrievalDataset("bare", sets[1].images, sets[1].images[:1], GroundTruth(positive=[[0]]))
    with pytest.raises(WhiteningError, match="no labels"):
        Ablation(sets[0], {"whitening": ["learned"]}, fit_on=bare).run(progress=False)


@pytest.mark.parametrize(
    "axes, said",
    [
        ({}, "axes are empty"),
        (
            {"polling": ["gem"]},
            "known are crop, dimension, flip, image_size, .*mean pooling",
        ),
        ({"pooling": "gem"}, "a list of values"),
        ({"pooling": []}, "a list of values"),
        ({"pooling": ["gme"]}, "known are"),
        ({"pooling": [3]}, "not text"),
        ({"pooling": ["gem", "gem:p=3"]}, "twice"),
        ({"whitening": ["zca"]}, "learned, pca"),
        ({"whitening": ["pca:powre=1"]}, "takes dim, power"),
        ({"dimension": [0]}, "whole number from 1"),
        ({"dimension": [True]}, "whole number from 1"),
        ({"image_size": [2.5]}, "whole number from 1"),
        ({"scales": [1]}, "positive factors"),
        ({"scales": [[1, -1]]}, "positive factors"),
        ({"scales": [[]]}, "positive factors"),
    ],
)
def test_wrong_axes(sets, calls, axes, said):
    with pytest.raises(SpecError, match=said):
        Ablation(sets[0], axes, fit_on=sets[1])
    assert not calls


def test_wrong_cells_and_protocols(sets, calls):
    judged, others = sets
    for baseline, said in (
        ({"poling": "gem"}, "no axis here"),
        ({"pooling": "spoc"}, "not in the grid: it has gem, mac"),
    ):
        with pytest.raises(SpecError, match=said):
            Ablation(judged, GRID, baseline, fit_on=others)
    with pytest.raises(TruthError, match="not graded"):
        Ablation(judged, GRID, fit_on=others, protocols=["hard"])
    ablation = Ablation(judged, {"dimension": [D, D + 1]})
    for early in (ablation.to_csv, ablation.changed):
        with pytest.raises(SpecError, match="call run first"):
            early((D,))
    with pytest.raises(SpecError, match=f"these vectors have {D}"):
        ablation.run(progress=False)
    with pytest.raises(SpecError, match="a value for each"):
        ablation.find(("gem", 3))
    with pytest.raises(SpecError, match="was not run"):
        done = Ablation(judged, {"dimension": [None]})
        done.run(progress=False)
        done.compare({}, "hard")


def test_own_axes_at_each_stage(sets, calls, own_axes):
    def backwards(value, vectors, ranking):
        assert vectors.database.shape == (8, D)
        return Ranking(ranking.ids[:, ::-1], ranking.scores[:, ::-1]) if value else ranking

    register_axis("backwards", "rank", backwards)
    register_axis("backbone", "extract", lambda value, settings: settings | {"backbone": value})
    axes = {"backwards": [False, True], "backbone": ["one", "another"]}
    table = Ablation(sets[0], axes).run(progress=False)
    assert [c[0] for c in calls] == ["one-gem", "one-gem", "another-gem", "another-gem"]
    assert table["backwards"].tolist() == [False, False, True, True]
    assert (table["mAP"][:2].to_numpy() > table["mAP"][2:].to_numpy()).all()
    for name, stage, said in (
        ("backwards", "rank", "taken"),
        ("mAP", "rank", "taken"),
        ("new", "end", "not one of extract, transform, rank"),
    ):
        with pytest.raises(SpecError, match=said):
            register_axis(name, stage, backwards)


# --- files

CONFIG = """
dataset = "squares"
fit_on = "others"
image_size = 64
baseline = {pooling = "mac"}
[axes]
pooling = ["gem", "mac"]
scales = [[1], [1, 0.5]]
whitening = ["none", "pca:power=0.5"]
"""


@pytest.fixture
def config(sets, monkeypatch, tmp_path):
    "A configuration file; its sets are found."
    monkeypatch.setattr(imret.ablation, "load_benchmark", {"squares": sets[0]}.get)
    monkeypatch.setattr(imret.ablation, "load_dataset", {"others": sets[1]}.get)
    file = tmp_path / "grid.toml"
    file.write_text(CONFIG)
    return file


def test_config_says_the_same_as_code(sets, calls, config, tmp_path):
    axes = {"pooling": ["gem", "mac"], "scales": [(1,), (1, 0.5)]}
    axes["whitening"] = [None, "pca:power=0.5"]
    coded = Ablation(sets[0], axes, {"pooling": "mac"}, image_size=64, fit_on=sets[1])
    read = Ablation.from_config(config)
    assert read.axes == coded.axes and read.settings == coded.settings
    pd.testing.assert_frame_equal(read.run(progress=False), coded.run(progress=False))
    read.to_csv(tmp_path / "made" / "table.csv")
    again = pd.read_csv(tmp_path / "made" / "table.csv", keep_default_na=False, na_values=[""])
    assert again.columns.tolist() == read.table.columns.tolist()
    assert np.allclose(again["mAP"], read.table["mAP"])


@pytest.mark.parametrize(
    "old, new, error, said",
    [
        ("image_size", "size", SpecError, "unknown key 'size': known are allow_test_fit, axes"),
        ("[axes]", "[axis]", SpecError, "unknown key 'axis'"),
        ('dataset = "squares"', "", SpecError, "needs dataset"),
        ("[axes]", "axes = 3\n[more]", SpecError, "more"),
        ("[axes]", "[axes", StoreError, "no TOML file"),
    ],
)
def test_wrong_config(config, old, new, error, said):
    config.write_text(CONFIG.replace(old, new))
    with pytest.raises(error, match=said):
        Ablation.from_config(config)


def test_missing_config(tmp_path):
    with pytest.raises(StoreError, match="no TOML file"):
        Ablation.from_config(tmp_path / "nothing.toml")


def test_picture(sets, calls):
    table = Ablation(sets[0], GRID, fit_on=sets[1]).run(progress=False)
    both = pd.concat([table, table.assign(protocol="other")])
    figure = plot_ablation(both)
    assert len(figure.axes) == 4
    assert [len(ax.patches) for ax in figure.axes] == [len(table)] * 4
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels[0] == "none, gem, none"
    plt.close(figure)
    with pytest.raises(SpecError, match="lacks protocol"):
        plot_ablation(table.drop(columns="protocol"))
