"""Learning to retrieve: losses, hard negatives, and what turns a net into a better one."""

from imret.training.average_precision import AveragePrecisionLoss, SmoothAPLoss, staged_backward
from imret.training.batch_losses import (
    BatchLoss,
    ClassLoss,
    DistillationLoss,
    LiftedStructuredLoss,
    MetricLearningLoss,
    PairDistanceLoss,
    TeacherLoss,
    TripletHashingLoss,
)
from imret.training.codes import judge_codes, sign_codes
from imret.training.heads import (
    CentralSimilarityLoss,
    HashNetLoss,
    OrthoHashLoss,
    hash_centres,
)
from imret.training.history import LivePlot, plot_history, read_log
from imret.training.losses import (
    LOSSES,
    ContrastiveLoss,
    Loss,
    SecondOrderLoss,
    SoftmaxTupleLoss,
    TrainingError,
    TripletLoss,
    TupleLoss,
    create_loss,
    list_losses,
    register_loss,
)
from imret.training.mining import HardNegatives, RandomNegatives, Tuples
from imret.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    create_optimizer,
    create_schedule,
    parameter_groups,
    register_optimizer,
    register_schedule,
    set_rates,
)
from imret.training.order import OrderAwareLoss
from imret.training.recipes import (
    create_net,
    create_trainer,
    fill_whitening,
    list_recipes,
    open_pool,
    pool_benchmark,
    read_recipe,
    run_descriptor,
)
from imret.training.samplers import ClassBatches, RandomBatches, semihard_triplets
from imret.training.trainer import LabelBatches, Trainer, TupleBatches, judge_cosine
from imret.training.tuples import TuplePool
from imret.training.views import VIEWS, View

__all__ = [
    "AveragePrecisionLoss",
    "BatchLoss",
    "CentralSimilarityLoss",
    "ClassBatches",
    "ClassLoss",
    "ContrastiveLoss",
    "DistillationLoss",
    "HardNegatives",
    "HashNetLoss",
    "LOSSES",
    "LabelBatches",
    "LiftedStructuredLoss",
    "LivePlot",
    "Loss",
    "MetricLearningLoss",
    "OPTIMIZERS",
    "OrderAwareLoss",
    "OrthoHashLoss",
    "PairDistanceLoss",
    "RandomBatches",
    "RandomNegatives",
    "SCHEDULES",
    "SecondOrderLoss",
    "SmoothAPLoss",
    "SoftmaxTupleLoss",
    "TeacherLoss",
    "Trainer",
    "TrainingError",
    "TripletHashingLoss",
    "TripletLoss",
    "TupleBatches",
    "TupleLoss",
    "TuplePool",
    "Tuples",
    "VIEWS",
    "View",
    "create_loss",
    "create_net",
    "create_optimizer",
    "create_schedule",
    "create_trainer",
    "fill_whitening",
    "hash_centres",
    "judge_codes",
    "judge_cosine",
    "list_losses",
    "list_recipes",
    "open_pool",
    "parameter_groups",
    "plot_history",
    "pool_benchmark",
    "read_log",
    "read_recipe",
    "register_loss",
    "register_optimizer",
    "register_schedule",
    "run_descriptor",
    "semihard_triplets",
    "set_rates",
    "sign_codes",
    "staged_backward",
]
