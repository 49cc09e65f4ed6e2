"""From image files to a matrix of descriptors."""

from imret.features.cache import VectorCache
from imret.features.extract import extract
from imret.features.images import crop_image, decode_image, read_image, resize_image

__all__ = [
    "VectorCache",
    "crop_image",
    "decode_image",
    "extract",
    "read_image",
    "resize_image",
]
