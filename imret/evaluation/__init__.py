"""What a ranking is worth: metrics by name, protocols and confidence."""

from imret.evaluation.confidence import bootstrap_interval
from imret.evaluation.precision import average_precision, revisited_precision
from imret.evaluation.protocols import Evaluation, evaluate, judge, query_table

__all__ = [
    "Evaluation",
    "average_precision",
    "bootstrap_interval",
    "evaluate",
    "judge",
    "query_table",
    "revisited_precision",
]
