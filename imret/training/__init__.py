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
from imret.training.heads import (
    HEADS,
    CentralSimilarityLoss,
    DivideEncodeHead,
    HashNetLoss,
    LinearHead,
    OrthoHashLoss,
    create_head,
    hash_centres,
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
from imret.training.mining import HardNegatives, RandomNegatives, Tuples
from imret.training.samplers import ClassBatches, RandomBatches, semihard_triplets
from imret.training.tuples import TuplePool

__all__ = [
    "AveragePrecisionLoss",
    "BatchLoss",
    "CentralSimilarityLoss",
    "ClassBatches",
    "ClassLoss",
    "ContrastiveLoss",
    "DistillationLoss",
    "DivideEncodeHead",
    "HEADS",
    "HardNegatives",
    "HashNetLoss",
    "LOSSES",
    "LiftedStructuredLoss",
    "LinearHead",
    "Loss",
    "MetricLearningLoss",
    "OrthoHashLoss",
    "PairDistanceLoss",
    "RandomBatches",
    "RandomNegatives",
    "SecondOrderLoss",
    "SmoothAPLoss",
    "SoftmaxTupleLoss",
    "TeacherLoss",
    "TrainingError",
    "TripletHashingLoss",
    "TripletLoss",
    "TupleLoss",
    "TuplePool",
    "Tuples",
    "create_head",
    "create_loss",
    "hash_centres",
    "list_losses",
    "register_loss",
    "semihard_triplets",
    "staged_backward",
]
