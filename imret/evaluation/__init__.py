"""What a ranking is worth: metrics by name, protocols and confidence."""

from imret.evaluation.audit import AuditSet, LeakReport, audit
from imret.evaluation.compare import Comparison, compare, permutation_p
from imret.evaluation.compare_runs import (
    ResultsComparison,
    check_comparable,
    compare_results,
)
from imret.evaluation.confidence import bootstrap_interval, overlap_groups
from imret.evaluation.metrics import METRICS, Metric, Places, find_metric, measure
from imret.evaluation.pairs import (
    equal_error_rate,
    error_rates,
    global_average_precision,
    micro_precision,
    pair_auc,
    recall_at_precision,
)
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
from imret.evaluation.runs import Results, truth_marks
from imret.evaluation.saved import check_folder
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
    "AuditSet",
    "Comparison",
    "Evaluation",
    "LeakReport",
    "Metric",
    "OperatingPoint",
    "Places",
    "Results",
    "ResultsComparison",
    "ScoredPairs",
    "TiedPlaces",
    "audit",
    "average_precision",
    "bootstrap_interval",
    "check_comparable",
    "check_folder",
    "choose_threshold",
    "classic_truth",
    "compare",
    "compare_results",
    "count_above",
    "equal_error_rate",
    "error_rates",
    "evaluate",
    "evaluate_hashing",
    "expected_precision",
    "find_metric",
    "global_average_precision",
    "group_spread",
    "held_out_threshold",
    "judge",
    "measure",
    "micro_precision",
    "overlap_groups",
    "pair_auc",
    "permutation_p",
    "places_precision",
    "query_places",
    "query_table",
    "recall_at_precision",
    "results_table",
    "revisited_precision",
    "scored_pairs",
    "threshold_table",
    "truth_marks",
]
