"""Image retrieval, taught and measured notebook by notebook."""

__version__ = "0.2.0"
