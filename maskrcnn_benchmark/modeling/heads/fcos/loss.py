"""Losses of FCOS: classes, boxes weighted by centerness, and centerness (Tian et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.heads.common import flatten_map, gather_at_points, multilevel_focal_loss
from maskrcnn_benchmark.modeling.heads.fcos.targets import (
    FCOSOutputs,
    Points,
    Positives,
    batch_targets,
    centerness_target,
)
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList

BoxLoss = Callable[[Tensor, Tensor], Tensor]
"""(predicted (P, 4), target (P, 4)), distances left, top, right, bottom -> loss (P,)."""

MIN_IOU = 1e-6
ENCLOSING_EPS = 1e-7
MIN_WEIGHT_SUM = 1e-6
"""The box loss is divided by the sum of its centerness weights, at least by this."""


class FCOSLoss:
    """Focal loss of all locations; box and centerness losses of the positive ones."""

    def __init__(
        self,
        strides: Sequence[int],
        *,
        gamma: float,
        alpha: float,
        box_loss: str,
        center_radius: float,
        per_process: bool = False,
    ) -> None:
        """box_loss: a key of BOX_LOSSES. center_radius: of centre sampling in strides, 0 for none.
        per_process: means are over the positives of one process, and that of the class loss counts its
        images too (parity: SipMask of mmdetection).
        """
        self.strides = list(strides)
        self.gamma = gamma
        self.alpha = alpha
        self.box_loss = BOX_LOSSES[box_loss]
        self.center_radius = center_radius
        self.per_process = per_process

    def __call__(
        self, outputs: FCOSOutputs, points: Points, targets: Sequence[BoxList]
    ) -> dict[str, LossTerm]:
        """Unnormalised `loss_cls`, `loss_reg`, `loss_centerness`, scalars."""
        return self.of_positives(outputs, *self.assign(points, targets))

    def assign(self, points: Points, targets: Sequence[BoxList]) -> tuple[Tensor, Positives]:
        """Labels (B, N) of all locations, and the targets of the positive ones."""
        return batch_targets(points, self.strides, targets, radius=self.center_radius)

    def of_positives(self, outputs: FCOSOutputs, labels: Tensor, positives: Positives) -> dict[str, LossTerm]:
        """Unnormalised losses (scalars) for labels (B, N) and positives as `assign` gives them."""
        count = len(positives)
        where = (positives.image, positives.point)
        predicted = gather_at_points(outputs.distances, *where).float()
        centerness = gather_at_points(outputs.centerness, *where).squeeze(1).float()
        weight = centerness_target(positives.distances)
        box_loss = (self.box_loss(predicted, positives.distances) * weight).sum()
        centerness_loss = F.binary_cross_entropy_with_logits(centerness, weight, reduction="sum")
        logits = [flatten_map(level, level.shape[1]) for level in outputs.logits]
        class_loss = multilevel_focal_loss(logits, labels, gamma=self.gamma, alpha=self.alpha)
        local = self.per_process
        return {
            "loss_cls": LossTerm(class_loss, count + (len(labels) if local else 0), per_process=local),
            "loss_reg": LossTerm(box_loss, weight.sum(), least=MIN_WEIGHT_SUM, per_process=local),
            "loss_centerness": LossTerm(centerness_loss, count, per_process=local),
        }


def iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """IoU loss -log(IoU) (P,) of distances (P, 4) (UnitBox, Yu et al. 2016)."""
    return -_smoothed_iou(predicted, target).log()


def linear_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Linear IoU loss 1 - IoU (P,) of distances (P, 4)."""
    return 1 - _smoothed_iou(predicted, target)


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Generalised IoU loss 1 - GIoU (P,) of distances (P, 4) (Rezatofighi et al. 2019, section 3)."""
    intersection, union = _intersection_and_union(predicted, target)
    extent = torch.maximum(predicted, target)
    width, height = extent[:, 0] + extent[:, 2], extent[:, 1] + extent[:, 3]
    enclosing = width * height + ENCLOSING_EPS
    return 1 - ((intersection + 1) / (union + 1) - (enclosing - union) / enclosing)


def inclusive_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """IoU loss -log(IoU) (P,) of distances (P, 4), which may be negative, with sides one longer.

    parity: SipMask of mmdetection.
    """
    intersection = _inclusive_area(torch.minimum(predicted, target), min_side=0.0)
    iou = intersection / (_inclusive_area(predicted) + _inclusive_area(target) - intersection)
    return -iou.clamp(min=MIN_IOU).log()


BOX_LOSSES: dict[str, BoxLoss] = {
    "iou": iou_loss,
    "linear_iou": linear_iou_loss,
    "giou": giou_loss,
    "inclusive_iou": inclusive_iou_loss,
}
"""By the name in MODEL.FCOS.IOU_LOSS_TYPE."""


def _area(distances: Tensor) -> Tensor:
    """Area (P,) of the boxes of distances (P, 4)."""
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])


def _intersection_and_union(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Areas, both (P,), of the intersection and the union of boxes around the same locations."""
    intersection = _area(torch.minimum(predicted, target))
    return intersection, _area(target) + _area(predicted) - intersection


def _smoothed_iou(predicted: Tensor, target: Tensor) -> Tensor:
    """IoU (P,) of distances (P, 4); parity: one is added to both areas."""
    intersection, union = _intersection_and_union(predicted, target)
    return (intersection + 1) / (union + 1)


def _inclusive_area(distances: Tensor, min_side: float | None = None) -> Tensor:
    """Area (P,) of the boxes of distances (P, 4) whose sides are one longer, each at least `min_side`."""
    width, height = distances[:, 0] + distances[:, 2] + 1, distances[:, 1] + distances[:, 3] + 1
    if min_side is not None:
        width, height = width.clamp(min=min_side), height.clamp(min=min_side)
    return width * height
