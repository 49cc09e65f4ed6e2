"""From a query vector to a ranking: exact search, among vectors and codes."""

from imret.search.binary import BinaryIndex, as_vectors, hamming
from imret.search.duplicates import duplicate_groups
from imret.search.flat import FlatIndex, SearchError, TopK, top_k

__all__ = [
    "BinaryIndex",
    "FlatIndex",
    "SearchError",
    "TopK",
    "as_vectors",
    "duplicate_groups",
    "hamming",
    "top_k",
]
