"""Learning to retrieve: losses, hard negatives, and what turns a net into a better one."""

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
from imret.training.tuples import TuplePool

__all__ = [
    "BatchLoss",
    "ClassLoss",
    "ContrastiveLoss",
    "DistillationLoss",
    "LOSSES",
    "LiftedStructuredLoss",
    "Loss",
    "MetricLearningLoss",
    "PairDistanceLoss",
    "SecondOrderLoss",
    "SoftmaxTupleLoss",
    "TeacherLoss",
    "TrainingError",
    "TripletHashingLoss",
    "TripletLoss",
    "TupleLoss",
    "TuplePool",
    "create_loss",
    "list_losses",
    "register_loss",
]
