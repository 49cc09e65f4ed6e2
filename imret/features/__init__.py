"""From image files to a matrix of descriptors."""

from imret.features.cache import VectorCache
from imret.features.extract import check_framing, extract
from imret.features.fusion import MultiLayerFusion, extract_layers
from imret.features.images import (
    crop_image,
    decode_image,
    frame_image,
    read_image,
    resize_image,
)
from imret.features.importers import import_whitening
from imret.features.multiscale import (
    SCALES,
    combine_scales,
    create_scales,
    describe,
    extract_multiscale,
    register_scales,
    resolutions,
    scale_power,
)
from imret.features.named import (
    WHITENINGS,
    create_whitening,
    describe_set,
    fit_named,
    guard_sets,
    matching_of,
    read_whitening,
    register_whitening,
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
    "SCALES",
    "VectorCache",
    "WHITENINGS",
    "Whitening",
    "WhiteningError",
    "check_framing",
    "combine_scales",
    "create_scales",
    "create_whitening",
    "crop_image",
    "decode_image",
    "describe",
    "describe_set",
    "extract",
    "extract_layers",
    "extract_multiscale",
    "fit_named",
    "fit_whitening",
    "frame_image",
    "guard_fit",
    "guard_sets",
    "import_whitening",
    "matching_of",
    "matching_pairs",
    "moments",
    "read_image",
    "read_whitening",
    "register_scales",
    "register_whitening",
    "resize_image",
    "resolutions",
    "scale_power",
]
