"""From image files to a matrix of descriptors."""

import lazy_loader

# not by __init__.pyi, for once loaded the module of this name would stand in its place
from imret.features.extract import extract as extract

# What stands in __init__.pyi is loaded when it is asked for: describing an image needs no dataset.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
