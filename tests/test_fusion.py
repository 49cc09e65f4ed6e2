"""Fusion of layers: against plain loops and scikit-learn, shapes of the study, and bad input."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from imret.features import (
    MultiLayerFusion,
    PCAWhitening,
    Whitening,
    WhiteningError,
    fit_whitening,
)


def maps(n: int = 60, regions: int = 4, dims=(6, 9, 14), seed: int = 0) -> dict[str, np.ndarray]:
    "Positive region vectors of several branches, channels of very different loudness."
    rng = np.random.default_rng(seed)
    return {
        f"b{d}": (rng.random((n, regions, d)) * np.geomspace(1, 20, d)).astype(np.float32)
        for d in dims
    }


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.sqrt((v * v).sum())


def plain_fusion(train: dict, test: dict, pca=True, plain=(), weights=None) -> np.ndarray:
    "The study's steps, a picture and a region at a time, with scikit-learn's scaler and PCA."
    fitted = {}
    for name, x in train.items():
        rows = np.array([unit(r) for image in x.astype(np.float64) for r in image])
        scaler = StandardScaler().fit(rows)
        fitted[name] = scaler, PCA(whiten=True, svd_solver="full").fit(scaler.transform(rows))
    out = []
    for i in range(len(next(iter(test.values())))):
        joined = []
        for name, x in test.items():
            total = 0
            for region in x[i].astype(np.float64):
                r = unit(region)
                if pca and name not in plain:
                    scaler, rotate = fitted[name]
                    r = unit(rotate.transform(scaler.transform(r[None]))[0])
                total = total + r
            weight = x.shape[-1] if weights is None else weights[name]
            joined.append(unit(total) * weight)
        out.append(unit(np.concatenate(joined)))
    return np.array(out)


@pytest.mark.parametrize(
    "how, plain_how",
    [
        ({}, {}),
        ({"pca": False}, {"pca": False}),
        ({"plain": ["b14"]}, {"plain": ["b14"]}),
        ({"weights": None}, {"weights": {"b6": 1, "b9": 1, "b14": 1}}),
        (
            {"weights": {"b6": 3, "b9": 0, "b14": 0.5}},
            {"weights": {"b6": 3, "b9": 0, "b14": 0.5}},
        ),
    ],
)
def test_equals_the_plain_loop(how, plain_how):
    train, test = maps(), maps(11, 4, seed=1)
    ours = MultiLayerFusion(**how).fit(train).transform(test)
    assert ours.dtype == np.float32
    assert np.allclose(ours, plain_fusion(train, test, **plain_how), atol=2e-4)


def test_scaling_before_full_whitening_is_a_rotation():
    train, test = maps(dims=(9,)), maps(11, dims=(9,), seed=1)
    ours = MultiLayerFusion().fit(train).transform(test)
    rows = (train["b9"] / np.linalg.norm(train["b9"], axis=-1, keepdims=True)).reshape(-1, 9)
    whitened = PCAWhitening().fit(rows)
    units = test["b9"] / np.linalg.norm(test["b9"], axis=-1, keepdims=True)
    alone = whitened.transform(units.reshape(-1, 9)).reshape(11, 4, 9).sum(axis=1)
    alone /= np.linalg.norm(alone, axis=1, keepdims=True)
    assert np.allclose(ours @ ours.T, alone @ alone.T, atol=1e-3)


def test_lists_vectors_and_order():
    named = maps()
    by_name = MultiLayerFusion().fit(named)
    listed = MultiLayerFusion().fit(list(named.values())).transform(list(named.values()))
    assert np.array_equal(by_name.transform(named), listed)
    backwards = dict(reversed(named.items()))
    assert np.array_equal(by_name.transform(backwards), listed)
    flat = {name: x[:, 0] for name, x in named.items()}
    single = {name: x[:, :1] for name, x in named.items()}
    assert np.array_equal(
        MultiLayerFusion().fit(flat).transform(flat),
        MultiLayerFusion().fit(single).transform(single),
    )
    some = {name: x[[3, 8]] for name, x in named.items()}
    assert np.allclose(by_name.transform(some), listed[[3, 8]], atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_reprojection(power):
    train, test = maps(), maps(11, seed=1)
    whole = MultiLayerFusion().fit(train)
    wanted = PCAWhitening(5, power).fit(whole.transform(train)).transform(whole.transform(test))
    ours = MultiLayerFusion(dim=5, power=power).fit(train).transform(test)
    assert ours.shape == (11, 5) and np.allclose(ours, wanted, atol=1e-5)


def test_dimensions_of_the_study():
    rng = np.random.default_rng(0)
    widths = {"res2c": 256, "res3b3": 512, "res4b22": 1024, "res5c": 2048}
    branches = {n: rng.random((2, 3, d), dtype=np.float32) for n, d in widths.items()}
    four = MultiLayerFusion(pca=False).fit(branches)
    assert four.transform(branches).shape == (2, 3840)
    two = {n: branches[n] for n in ("res4b22", "res5c")}
    assert MultiLayerFusion(pca=False).fit_transform(two).shape == (2, 3072)
    matrix = rng.standard_normal((2048, 3840), dtype=np.float32)
    four.reduce_ = Whitening.from_dict({"m": np.zeros(3840), "P": matrix})
    assert four.transform(branches).shape == (2, 2048)


def test_leak_is_guarded():
    with pytest.raises(WhiteningError, match="allow_test_fit=True"):
        fit_whitening(MultiLayerFusion(), "oxford5k", maps(), evaluated="roxford5k")
    fitted = fit_whitening(MultiLayerFusion(), "tinytown_train", maps(), evaluated="tinytown")
    assert fitted.fitted_on_ == "tinytown_train"


GOOD = maps()


@pytest.mark.parametrize(
    "fusion, branches, said",
    [
        (MultiLayerFusion(), {}, "no branches"),
        (MultiLayerFusion(), {"a": np.ones(3)}, r"'a' is \(N, D\) or \(N, R, D\)"),
        (MultiLayerFusion(), [np.ones((3, 4)), np.ones((5, 4))], "same pictures, got {0: 3, 1: 5}"),
        (MultiLayerFusion(), [GOOD["b6"][:1]], "branch 0: 4 vectors of 6 dimensions span"),
        (
            MultiLayerFusion(),
            {"a": np.full((9, 2, 4), np.nan)},
            "branch 'a', picture 0: not finite",
        ),
        (MultiLayerFusion(), {"a": np.full((9, 2, 4), 0.5)}, "branch 'a': .*all equal"),
        (MultiLayerFusion(plain=["z"]), GOOD, "plain=.*'z'.*there are b6, b9, b14"),
        (MultiLayerFusion(weights={"z": 1}), GOOD, "for each of b6, b9, b14"),
        (MultiLayerFusion(weights="size"), GOOD, "weights are 'dim'"),
        (MultiLayerFusion(dim=99), GOOD, "dim=99"),
    ],
)
def test_what_cannot_be_fused(fusion, branches, said):
    with pytest.raises(WhiteningError, match=said) as e:
        fusion.fit(branches)
    assert "\n" not in str(e.value)


def test_other_branches_in_transform():
    fitted = MultiLayerFusion().fit(GOOD)
    with pytest.raises(WhiteningError, match="fitted on branches"):
        fitted.transform({n: x for n, x in GOOD.items() if n != "b6"})
    with pytest.raises(WhiteningError, match="fitted on branches"):
        fitted.transform({n: x[..., :5] for n, x in GOOD.items()})
    with pytest.raises(WhiteningError, match="not fitted"):
        MultiLayerFusion().transform(GOOD)


def test_a_silent_channel_is_mended_by_shrinkage():
    silent = {name: x.copy() for name, x in GOOD.items()}
    silent["b6"][..., 2] = 0
    with pytest.raises(WhiteningError, match="branch 'b6': .* span 5"):
        MultiLayerFusion().fit(silent)
    assert np.isfinite(MultiLayerFusion(shrinkage=0.1).fit_transform(silent)).all()


# Regions that are not there


@pytest.mark.parametrize("how", [{}, {"pca": False}, {"plain": ["b9"]}, {"dim": 5}])
def test_rows_of_zeros_are_no_regions(how):
    train, few = maps(), maps(7, 4, seed=1)
    more = {name: np.pad(x, ((0, 0), (0, 3), (0, 0))) for name, x in few.items()}
    fitted = MultiLayerFusion(**how).fit(train)
    assert np.allclose(fitted.transform(more), fitted.transform(few), atol=1e-6)
    padded = {name: np.pad(x, ((0, 0), (2, 0), (0, 0))) for name, x in train.items()}
    again = MultiLayerFusion(**how).fit(padded)
    assert np.allclose(again.transform(few), fitted.transform(few), atol=1e-5)


def test_ragged_regions_by_plain_loops():
    train, test = maps(seed=2), maps(9, 6, seed=3)
    counts = np.random.default_rng(0).integers(1, 7, 9)
    for x in test.values():
        for row, n in zip(x, counts, strict=True):
            row[n:] = 0
    found = MultiLayerFusion().fit(train).transform(test)
    for i, n in enumerate(counts):
        alone = {name: x[i : i + 1, :n] for name, x in test.items()}
        assert np.allclose(found[i], plain_fusion(train, alone)[0], atol=1e-4)


def test_a_picture_without_regions_is_zero_and_one_unread_is_nan():
    test = maps(3)
    for x in test.values():
        x[1], x[2] = 0, np.nan
    found = MultiLayerFusion().fit(maps()).transform(test)
    assert np.isfinite(found[0]).all() and not found[1].any() and np.isnan(found[2]).all()


def test_many_pictures_go_in_blocks():
    train, test = maps(), maps(2500, 2, seed=4)
    fitted = MultiLayerFusion(dim=8).fit(train)
    alone = [fitted.transform({name: x[i : i + 1] for name, x in test.items()}) for i in (0, 1024)]
    assert np.allclose(fitted.transform(test)[[0, 1024]], np.concatenate(alone), atol=1e-6)


def test_all_zeros_is_told():
    branches = maps()
    branches["b9"] = np.zeros_like(branches["b9"])
    with pytest.raises(WhiteningError, match="branch 'b9': all its regions are zeros"):
        MultiLayerFusion().fit(branches)


# Files


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pca": False},
        {"plain": ["b9"], "dim": 7, "power": 0.5, "shrinkage": 0.1},
        {"weights": None},
        {"weights": {"b6": 2.0, "b14": 0.5}},
    ],
)
def test_saved_and_read(tmp_path, how):
    file = tmp_path / "f.npz"
    fitted = MultiLayerFusion(**how).fit(maps(), fitted_on="tinytown_train")
    fitted.save(file)
    again = MultiLayerFusion.load(file)
    test = maps(8, seed=5)
    assert np.array_equal(again.transform(test), fitted.transform(test))
    assert again.fitted_on_ == "tinytown_train" and again.weights_ == fitted.weights_
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]
    fresh = maps(seed=6)
    assert np.allclose(again.fit(fresh).transform(test), fitted.fit(fresh).transform(test))


def test_names_of_stages_come_back(tmp_path):
    file = tmp_path / "f.npz"
    branches = dict(zip((2, 4, "last"), maps().values(), strict=True))
    MultiLayerFusion().fit(branches).save(file)
    assert list(MultiLayerFusion.load(file).dims_) == [2, 4, "last"]
    fitted = MultiLayerFusion().fit({(1, 2): branches[2]})
    with pytest.raises(WhiteningError, match=r"text or whole numbers, not \(1, 2\)"):
        fitted.save(file)
    with pytest.raises(WhiteningError, match="not fitted"):
        MultiLayerFusion().save(file)


def test_other_and_damaged_files(tmp_path):
    file, other = tmp_path / "f.npz", tmp_path / "w.npz"
    MultiLayerFusion().fit(maps()).save(file)
    PCAWhitening().fit(maps()["b9"][:, 0]).save(other)
    with pytest.raises(WhiteningError, match=r"w\.npz is no fusion: it holds PCAWhitening"):
        MultiLayerFusion.load(other)
    with pytest.raises(WhiteningError, match=r"f\.npz is no whitening"):
        Whitening.load(file)
    with np.load(file) as f:
        arrays = dict(f)
    del arrays["P1"]
    np.savez(other, **arrays)
    with pytest.raises(WhiteningError, match=r"w\.npz is no whole fusion"):
        MultiLayerFusion.load(other)
    whole = file.read_bytes()
    for content in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(WhiteningError, match=r"f\.npz is no fusion"):
            MultiLayerFusion.load(file)
    with pytest.raises(WhiteningError, match="nowhere"):
        MultiLayerFusion.load(tmp_path / "nowhere.npz")
