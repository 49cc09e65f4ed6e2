"""From a query vector to a ranking: exact search."""

from imret.search.flat import FlatIndex, SearchError, TopK, top_k

__all__ = ["FlatIndex", "SearchError", "TopK", "top_k"]
