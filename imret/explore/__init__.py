"""Pictures and widgets that show why a ranking is right or wrong."""

from imret.explore.live import Live, data_uri
from imret.explore.plots import plot_ranking, plot_results, thumbnail
from imret.explore.ranking import RankingExplorer, spread
from imret.explore.sheet import ContactSheet
from imret.explore.threshold import ThresholdExplorer

__all__ = [
    "ContactSheet",
    "Live",
    "RankingExplorer",
    "ThresholdExplorer",
    "data_uri",
    "plot_ranking",
    "plot_results",
    "spread",
    "thumbnail",
]
