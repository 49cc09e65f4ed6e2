"""From image files to a matrix of descriptors."""

from imret.features.cache import VectorCache
from imret.features.extract import check_framing, extract
from imret.features.fusion import MultiLayerFusion
from imret.features.images import (
    crop_image,
    decode_image,
    frame_image,
    read_image,
    resize_image,
)
from imret.features.multiscale import (
    combine_scales,
    describe,
    extract_multiscale,
    resolutions,
    scale_power,
)
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
    "check_framing",
    "combine_scales",
    "crop_image",
    "decode_image",
    "describe",
    "extract",
    "extract_multiscale",
    "fit_whitening",
    "frame_image",
    "guard_fit",
    "matching_pairs",
    "moments",
    "read_image",
    "resize_image",
    "resolutions",
    "scale_power",
]
