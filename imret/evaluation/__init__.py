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

__all__ = [
    "DEFINITIONS",
    "METRICS",
    "Evaluation",
    "Metric",
    "Places",
    "average_precision",
    "bootstrap_interval",
    "evaluate",
    "find_metric",
    "judge",
    "measure",
    "places_precision",
    "query_table",
    "revisited_precision",
]
