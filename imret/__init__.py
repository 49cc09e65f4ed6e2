"""Image retrieval, taught and measured notebook by notebook."""

__version__ = "0.1.0"
