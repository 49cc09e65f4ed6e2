"""From pictures to descriptors: backbones, pooling, and the net that composes them."""

import lazy_loader

# What stands in __init__.pyi is loaded when it is asked for: a net from an ONNX file needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
