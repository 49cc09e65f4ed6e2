"""What a ranking is worth: metrics by name, protocols and confidence."""

from imret.evaluation.compare import Comparison, compare, permutation_p
from imret.evaluation.confidence import bootstrap_interval, overlap_groups
from imret.evaluation.metrics import METRICS, Metric, Places, find_metric, measure
from imret.evaluation.precision import (
    DEFINITIONS,
    average_precision,
    places_precision,
    revisited_precision,
)
from imret.evaluation.protocols import (
    TIES,
    classic_truth,
    evaluate,
    evaluate_hashing,
    judge,
    query_places,
    query_table,
)
from imret.evaluation.results import Evaluation, results_table
from imret.evaluation.thresholds import (
    OperatingPoint,
    ScoredPairs,
    choose_threshold,
    group_spread,
    held_out_threshold,
    scored_pairs,
    threshold_table,
)
from imret.evaluation.ties import TiedPlaces, count_above, expected_precision

__all__ = [
    "DEFINITIONS",
    "METRICS",
    "TIES",
    "Comparison",
    "Evaluation",
    "Metric",
    "OperatingPoint",
    "Places",
    "ScoredPairs",
    "TiedPlaces",
    "average_precision",
    "bootstrap_interval",
    "choose_threshold",
    "classic_truth",
    "compare",
    "count_above",
    "evaluate",
    "evaluate_hashing",
    "expected_precision",
    "find_metric",
    "group_spread",
    "held_out_threshold",
    "judge",
    "measure",
    "overlap_groups",
    "permutation_p",
    "places_precision",
    "query_places",
    "query_table",
    "results_table",
    "revisited_precision",
    "scored_pairs",
    "threshold_table",
]
