"""Overlap losses of boxes that are given as distances from one point (SipMask spec 2.4 and 5)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BoxLoss = Callable[[Tensor, Tensor], Tensor]
"""(predicted (P,4), wanted (P,4)) left, top, right, bottom -> loss (P,)."""

SMALLEST_OVERLAP = 1e-6
ENCLOSING_EPS = 1e-7


def _areas(predicted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Common area and union, both (P,)."""

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    common = area(torch.minimum(predicted, wanted))
    return common, area(wanted) + area(predicted) - common


def _smoothed_iou(predicted: Tensor, wanted: Tensor) -> Tensor:
    """parity: one is added to both areas."""
    common, union = _areas(predicted, wanted)
    return (common + 1) / (union + 1)


def iou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """-log of the overlap (UnitBox, Yu et al. 2016)."""
    return -_smoothed_iou(predicted, wanted).log()


def linear_iou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - overlap."""
    return 1 - _smoothed_iou(predicted, wanted)


def giou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalised overlap (Rezatofighi et al. 2019)."""
    common, union = _areas(predicted, wanted)
    most = torch.maximum(predicted, wanted)
    width, height = most[:, 0] + most[:, 2], most[:, 1] + most[:, 3]
    enclosing = width * height + ENCLOSING_EPS
    return 1 - ((common + 1) / (union + 1) - (enclosing - union) / enclosing)


def inclusive_iou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """-log of the overlap with sides one longer; distances may be negative (SipMask of mmdetection)."""

    def area(sides: Tensor) -> Tensor:
        width, height = sides[:, 0] + sides[:, 2] + 1, sides[:, 1] + sides[:, 3] + 1
        return width * height

    least = torch.minimum(predicted, wanted)
    width, height = least[:, 0] + least[:, 2] + 1, least[:, 1] + least[:, 3] + 1
    common = width.clamp(min=0) * height.clamp(min=0)
    overlap = common / (area(predicted) + area(wanted) - common)
    return -overlap.clamp(min=SMALLEST_OVERLAP).log()


BOX_LOSSES: dict[str, BoxLoss] = {
    "iou": iou_loss,
    "linear_iou": linear_iou_loss,
    "giou": giou_loss,
    "inclusive_iou": inclusive_iou_loss,
}
"""By the name in MODEL.FCOS.IOU_LOSS_TYPE."""
