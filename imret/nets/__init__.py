"""From pictures to descriptors: backbones, pooling, and the net that composes them."""

from imret.nets.backbones import (
    Backbone,
    Preprocess,
    WeightsError,
    create_backbone,
    pypi_weights,
)
from imret.nets.embedder import EmbeddingNet, create_embedder, list_embedders
from imret.nets.inference import InferenceNet, inference_net
from imret.nets.pooling import (
    MAC,
    POOLINGS,
    GeM,
    GeMCars,
    Pooling,
    SPoC,
    create_pooling,
    place_effects,
    register_pooling,
)

__all__ = [
    "Backbone",
    "EmbeddingNet",
    "GeM",
    "GeMCars",
    "InferenceNet",
    "MAC",
    "POOLINGS",
    "Pooling",
    "Preprocess",
    "SPoC",
    "WeightsError",
    "create_backbone",
    "create_embedder",
    "create_pooling",
    "inference_net",
    "list_embedders",
    "place_effects",
    "pypi_weights",
    "register_pooling",
]
