"""From image files to a matrix of descriptors."""

from imret.features.cache import VectorCache
from imret.features.extract import extract
from imret.features.fusion import MultiLayerFusion
from imret.features.images import crop_image, decode_image, read_image, resize_image
from imret.features.whitening import (
    LearnedWhitening,
    Moments,
    PCAWhitening,
    Whitening,
    WhiteningError,
    fit_whitening,
    guard_fit,
    matching_pairs,
    moments,
)

__all__ = [
    "LearnedWhitening",
    "Moments",
    "MultiLayerFusion",
    "PCAWhitening",
    "VectorCache",
    "Whitening",
    "WhiteningError",
    "crop_image",
    "decode_image",
    "extract",
    "fit_whitening",
    "guard_fit",
    "matching_pairs",
    "moments",
    "read_image",
    "resize_image",
]
