# What the room offers: type checkers read this, and __init__.py, which loads what is asked for.
from .cache import VectorCache
from .descriptor import Descriptor, DescriptorError, open_descriptor, pack_signs
from .extract import check_framing, extract
from .fusion import MultiLayerFusion, extract_layers
from .images import crop_image, decode_image, frame_image, read_image, resize_image
from .importers import import_whitening
from .multiscale import (
    SCALES,
    combine_scales,
    create_scales,
    describe,
    extract_multiscale,
    register_scales,
    resolutions,
    scale_power,
)
from .named import (
    WHITENINGS,
    create_whitening,
    describe_set,
    fit_named,
    guard_sets,
    matching_of,
    read_whitening,
    register_whitening,
)
from .spec import DescriptorSpec, read_spec
from .whitening import (
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
    "Descriptor",
    "DescriptorError",
    "DescriptorSpec",
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
    "open_descriptor",
    "pack_signs",
    "read_image",
    "read_spec",
    "read_whitening",
    "register_scales",
    "register_whitening",
    "resize_image",
    "resolutions",
    "scale_power",
]
