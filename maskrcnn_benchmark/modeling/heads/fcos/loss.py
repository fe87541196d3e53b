"""Losses of FCOS (SipMask spec 2.4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.heads.common import focal_loss_of_levels
from maskrcnn_benchmark.modeling.heads.fcos.targets import (
    Assignment,
    FCOSOutputs,
    Points,
    assign,
    at_points,
    centerness_of,
)
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.rpn.head import flatten_map
from maskrcnn_benchmark.structures.boxlist import BoxList

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

SMALLEST_WEIGHT = 1e-6
"""Least sum of centerness that divides the box loss."""


@dataclass(frozen=True)
class LossSettings:
    """Numbers of the losses. radius: of centre sampling in strides, 0 for none. per_process: means are taken
    over the positives of one process, and those of the class loss count its images too (parity: SipMask of
    mmdetection).
    """

    gamma: float
    alpha: float
    box_loss: str
    radius: float
    per_process: bool = False


@dataclass(frozen=True)
class Positives:
    """The positive points of a batch, P together: `image` (P,) and `point` (P,) say which they are, `matches`
    (P,) their object, `labels` (P,) its class, `wanted` (P,4) the distances in units of the outputs.
    """

    image: Tensor
    point: Tensor
    matches: Tensor
    labels: Tensor
    wanted: Tensor

    def __len__(self) -> int:
        """P."""
        return len(self.image)


class FCOSLoss:
    """Focal loss of all points; box and centerness losses of the positive ones."""

    def __init__(self, strides: Sequence[int], settings: LossSettings) -> None:
        self.strides = list(strides)
        self.settings = settings

    def __call__(
        self, outputs: FCOSOutputs, points: Points, targets: Sequence[BoxList]
    ) -> dict[str, LossTerm]:
        """`loss_cls`, `loss_reg`, `loss_centerness`, not yet divided."""
        labels, positives = self.positives(points, targets)
        return self.of_positives(outputs, labels, positives)

    def positives(self, points: Points, targets: Sequence[BoxList]) -> tuple[Tensor, Positives]:
        """Labels (B,N) of all points and what the positive ones learn."""
        found: list[Assignment] = [
            assign(points.locations, self.strides, target, radius=self.settings.radius) for target in targets
        ]
        labels = torch.stack([one.labels for one in found])
        image, point = (labels > 0).nonzero().unbind(1)
        units = torch.cat(points.units)
        wanted = torch.stack([one.distances for one in found])[image, point] / units[point]
        matches = torch.stack([one.matches for one in found])[image, point]
        return labels, Positives(image, point, matches, labels[image, point], wanted)

    def of_positives(self, outputs: FCOSOutputs, labels: Tensor, positives: Positives) -> dict[str, LossTerm]:
        """The losses for labels and positives as `positives` gives them."""
        own = self.settings.per_process
        count = len(positives)
        at = (positives.image, positives.point)
        predicted = at_points(outputs.distances, *at).float()
        centerness = at_points(outputs.centerness, *at).squeeze(1).float()
        weight = centerness_of(positives.wanted)
        boxes = (BOX_LOSSES[self.settings.box_loss](predicted, positives.wanted) * weight).sum()
        middle = F.binary_cross_entropy_with_logits(centerness, weight, reduction="sum")
        rows = [flatten_map(level, level.shape[1]) for level in outputs.logits]
        gamma, alpha = self.settings.gamma, self.settings.alpha
        classes = focal_loss_of_levels(rows, labels, gamma=gamma, alpha=alpha)
        return {
            "loss_cls": LossTerm(classes, count + (len(labels) if own else 0), per_process=own),
            "loss_reg": LossTerm(boxes, weight.sum(), least=SMALLEST_WEIGHT, per_process=own),
            "loss_centerness": LossTerm(middle, count, per_process=own),
        }
