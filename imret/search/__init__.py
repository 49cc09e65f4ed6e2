"""From a query vector to a ranking: exact search."""

from imret.search.duplicates import duplicate_groups
from imret.search.flat import FlatIndex, SearchError, TopK, top_k

__all__ = [
    "FlatIndex",
    "SearchError",
    "TopK",
    "duplicate_groups",
    "top_k",
]
