"""Whitening layers: against numpy in double precision, on vectors, maps and regions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from imret.core import ImretError
from imret.features import PCAWhitening
from imret.nets import LocalWhiten, RegionalWhiten, Whiten

LAYERS = [Whiten, LocalWhiten, RegionalWhiten]


def fitted(d: int = 5, dim: int = 12, seed: int = 0) -> SimpleNamespace:
    "Anything with a mean and a projection; some directions are scaled up a lot."
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-1, 2, d)[:, None]
    return SimpleNamespace(
        mean_=rng.normal(size=dim), projection_=scale * rng.normal(size=(d, dim))
    )


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_numpy(w, x: np.ndarray) -> np.ndarray:
    return (x - w.mean_) @ w.projection_.T


@pytest.mark.parametrize("shape", [(12,), (3, 12), (2, 4, 12)])
def test_vectors(shape):
    w, x = fitted(), np.random.default_rng(1).normal(size=shape)
    y = Whiten.from_whitening(w)(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(y, by_numpy(w, x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_every_place_of_a_map(memory):
    w, x = fitted(), np.random.default_rng(1).normal(size=(2, 12, 3, 4))
    maps = torch.from_numpy(x).contiguous(memory_format=memory)
    y = LocalWhiten.from_whitening(w)(maps).detach()
    assert y.shape == (2, 5, 3, 4)
    for i in range(3):
        for j in range(4):
            np.testing.assert_allclose(
                y[:, :, i, j], by_numpy(w, x[:, :, i, j]), rtol=1e-4, atol=1e-3
            )


def test_regions():
    w, x = fitted(), np.random.default_rng(1).normal(size=(2, 7, 12))
    y = RegionalWhiten.from_whitening(w)(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(y, unit(by_numpy(w, unit(x))), atol=1e-5)


def test_a_fitted_whitening_of_the_library():
    x = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32) @ np.diag(range(1, 13))
    w = PCAWhitening(dim=6).fit(np.float32(x))
    y = Whiten.from_whitening(w)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(unit(y), w.transform(np.float32(x)), atol=1e-5)
    np.testing.assert_allclose(np.cov(y.T), np.eye(6), atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_half_precision_keeps_float32(kind):
    layer = kind.from_whitening(fitted())
    x = torch.randn(2, 12, 4, 4) if kind is LocalWhiten else torch.randn(2, 3, 12)
    with torch.inference_mode():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), exact)
        assert layer(x.bfloat16()).dtype == torch.float32
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("kind", LAYERS)
def test_it_learns_and_comes_back_from_its_state(kind):
    layer, other = kind(12, 5), kind(12, 5)
    x = torch.randn(2, 12, 4, 4) if kind is LocalWhiten else torch.randn(2, 3, 12)
    layer(x).square().sum().backward() if kind is not RegionalWhiten else layer(x)[
        0, 0, 0
    ].backward()
    assert layer.weight.grad.abs().max() > 0 and layer.bias.grad.abs().max() > 0
    assert set(layer.state_dict()) == {"weight", "bias"}
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert kind(12).out_features == 12


@pytest.mark.parametrize("kind", LAYERS)
def test_another_dimension_is_named(kind):
    x = torch.zeros(2, 9, 4, 4) if kind is LocalWhiten else torch.zeros(2, 3, 9)
    with pytest.raises(ImretError, match="features of 9 dimensions, but this whitening takes 12"):
        kind.from_whitening(fitted())(x)


@pytest.mark.parametrize(
    "mean, projection", [((4,), (3, 5)), ((5, 1), (3, 5)), ((5,), (5,)), ((), (3, 5))]
)
def test_arrays_that_do_not_fit(mean, projection):
    with pytest.raises(ImretError, match=r"a mean \(D,\) and a projection \(d, D\)"):
        Whiten.from_arrays(np.zeros(mean), np.zeros(projection))


def test_not_fitted():
    with pytest.raises(ImretError, match="this PCAWhitening is not fitted: call fit first"):
        LocalWhiten.from_whitening(PCAWhitening())
