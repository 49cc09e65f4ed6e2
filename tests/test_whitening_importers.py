"""Whitenings from cirtorch's files: made ones in its layout, and files that hold something else."""

import numpy as np
import pytest
import torch

from imret.features import WhiteningError, import_whitening
from imret.nets import WeightsError

RNG = np.random.default_rng(0)


def made(d: int = 6, dim: int = 8) -> dict[str, np.ndarray]:
    return {"m": RNG.normal(size=(dim, 1)), "P": RNG.normal(size=(d, dim))}


LW = {"retrieval-SfM-120k": {"ss": made(), "ms": made(4)}, "retrieval-SfM-30k": {"ss": made()}}
X = RNG.normal(size=(5, 8)).astype(np.float32)


def by_columns(x: np.ndarray, lw: dict) -> np.ndarray:
    "As cirtorch applies it, to a vector at a time."
    out = []
    for row in x:
        y = np.asarray(lw["P"]) @ (row[:, None] - np.asarray(lw["m"]))
        out.append((y / np.linalg.norm(y))[:, 0])
    return np.array(out)


@pytest.fixture(params=["numpy", "tensors"])
def file(tmp_path, request):
    "A checkpoint of a net, its whitenings beside the weights."
    kept = LW
    if request.param == "tensors":
        kept = {
            name: {s: {k: torch.from_numpy(v) for k, v in lw.items()} for s, lw in pair.items()}
            for name, pair in LW.items()
        }
    meta = {"architecture": "resnet18", "pooling": "gem", "mean": [0.5] * 3, "std": [0.2] * 3}
    state = {"features.0.weight": torch.zeros(1)}
    torch.save({"meta": meta | {"Lw": kept}, "state_dict": state}, tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.mark.parametrize("dataset", list(LW))
@pytest.mark.parametrize("scales", ["ss", "ms"])
def test_every_set_and_scale(file, dataset, scales):
    if scales not in LW[dataset]:
        with pytest.raises(WhiteningError, match="retrieval-SfM-30k has no 'ms': ss"):
            import_whitening(file, dataset, scales)
        return
    found = import_whitening(file, dataset, scales)
    assert np.allclose(found.transform(X), by_columns(X, LW[dataset][scales]), atol=1e-5)
    assert found.fitted_on_ == dataset
    assert import_whitening(file, dataset, scales, dim=3).transform(X).shape == (5, 3)


def test_a_file_of_its_own(tmp_path):
    lw = LW["retrieval-SfM-120k"]["ms"]
    torch.save(lw, tmp_path / "net_retrieval-SfM-120k_whiten_ms.pth")
    found = import_whitening(tmp_path / "net_retrieval-SfM-120k_whiten_ms.pth", "mine")
    assert np.allclose(found.transform(X), by_columns(X, lw), atol=1e-5)
    assert found.fitted_on_ == "mine"


def test_what_it_refuses(file, tmp_path):
    with pytest.raises(WhiteningError, match="there are retrieval-SfM-120k, retrieval-SfM-30k"):
        import_whitening(file)
    with pytest.raises(WhiteningError, match="dataset='oxford5k'"):
        import_whitening(file, "oxford5k")
    with pytest.raises(WhiteningError, match="'ms', several"):
        import_whitening(file, scales="both")
    with pytest.raises(WeightsError, match="no weights file"):
        import_whitening(tmp_path / "nowhere.pth")
    plain = tmp_path / "plain.pth"
    for content in ({"state_dict": {}}, {"meta": None}, {"meta": {"Lw": {}}}, [1]):
        torch.save(content, plain)
        with pytest.raises(WhiteningError, match="holds no learned whitening"):
            import_whitening(plain)
    for wrong in (
        {"m": np.zeros((3, 1)), "P": np.eye(4)},
        {"m": np.zeros(3)},
        {"m": "a", "P": "b"},
    ):
        torch.save({"meta": {"Lw": {"s": {"ss": wrong}}}}, plain)
        with pytest.raises(WhiteningError, match=r"plain\.pth holds no whitening"):
            import_whitening(plain)


class Bad:
    def __reduce__(self):
        return print, ("run",)


def test_no_code_is_run(tmp_path, capsys):
    torch.save({"meta": {"Lw": {"s": {"ss": Bad()}}}}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        import_whitening(tmp_path / "bad.pth")
    assert "run" not in capsys.readouterr().out
