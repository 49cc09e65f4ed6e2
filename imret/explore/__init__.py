"""Pictures and widgets that show why a ranking is right or wrong."""

from imret.explore.ablation import AblationExplorer
from imret.explore.clusters import ClusterExplorer, nearest, weakest_pair
from imret.explore.live import Live, data_uri
from imret.explore.plots import plot_ranking, plot_results, thumbnail
from imret.explore.ranking import RankingExplorer, spread
from imret.explore.sheet import ContactSheet
from imret.explore.similarity import SimilarityExplorer, self_similarity
from imret.explore.threshold import ThresholdExplorer
from imret.explore.town import TownExplorer
from imret.explore.tuples import TupleExplorer

__all__ = [
    "AblationExplorer",
    "ClusterExplorer",
    "ContactSheet",
    "Live",
    "RankingExplorer",
    "SimilarityExplorer",
    "ThresholdExplorer",
    "TownExplorer",
    "TupleExplorer",
    "data_uri",
    "nearest",
    "plot_ranking",
    "plot_results",
    "self_similarity",
    "spread",
    "thumbnail",
    "weakest_pair",
]
