"""Losses of the box head (Fast R-CNN; core spec 9)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.losses import smooth_l1_loss
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.utils.errors import DataError

SMOOTH_L1_BETA = 1.0
"""parity: where the regression loss turns from square to linear."""


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    regression_targets: Tensor,
    *,
    class_agnostic: bool = False,
) -> dict[str, LossTerm]:
    """`loss_classifier` and `loss_box_reg` of sampled proposals, not yet divided.

    logits (N,C), deltas (N,4C) ((N,8) class-agnostic), labels int64 (N,), regression_targets (N,4).
    Classifier: cross entropy over labels >= 0. Boxes: smooth L1 of the columns of the label (class-agnostic:
    columns 4..7), summed over positives; its count is N. Without proposals both are zeros
    connected to the graph. Raises DataError for a label beyond the classes.
    """
    logits, deltas = logits.float(), deltas.float()
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise DataError(
            f"an object has label {int(labels.max())}, but the model knows classes 0..{logits.shape[1] - 1}: "
            "set MODEL.ROI_BOX_HEAD.NUM_CLASSES to the number of categories plus one"
        )
    classifier = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    positive = (labels > 0).nonzero().flatten()
    column = torch.ones_like(positive) if class_agnostic else labels[positive]
    predicted = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[positive, column]
    regression = smooth_l1_loss(predicted, regression_targets[positive], SMOOTH_L1_BETA)
    return {
        "loss_classifier": LossTerm(classifier, (labels >= 0).sum()),
        "loss_box_reg": LossTerm(regression, len(labels)),
    }
