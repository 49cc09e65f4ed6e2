"""What a ranking is worth: metrics by name, protocols and confidence."""

from imret.evaluation.confidence import bootstrap_interval
from imret.evaluation.metrics import METRICS, Metric, Places, find_metric, measure
from imret.evaluation.precision import (
    DEFINITIONS,
    average_precision,
    places_precision,
    revisited_precision,
)
from imret.evaluation.protocols import Evaluation, evaluate, judge, query_table
from imret.evaluation.thresholds import (
    OperatingPoint,
    ScoredPairs,
    choose_threshold,
    group_spread,
    held_out_threshold,
    scored_pairs,
    threshold_table,
)

__all__ = [
    "DEFINITIONS",
    "METRICS",
    "Evaluation",
    "Metric",
    "OperatingPoint",
    "Places",
    "ScoredPairs",
    "average_precision",
    "bootstrap_interval",
    "choose_threshold",
    "evaluate",
    "find_metric",
    "group_spread",
    "held_out_threshold",
    "judge",
    "measure",
    "places_precision",
    "query_table",
    "revisited_precision",
    "scored_pairs",
    "threshold_table",
]
