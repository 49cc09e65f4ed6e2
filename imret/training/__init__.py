"""Learning to retrieve: losses, hard negatives, and what turns a net into a better one."""

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

__all__ = [
    "ContrastiveLoss",
    "LOSSES",
    "Loss",
    "SecondOrderLoss",
    "SoftmaxTupleLoss",
    "TrainingError",
    "TripletLoss",
    "TupleLoss",
    "create_loss",
    "list_losses",
    "register_loss",
]
