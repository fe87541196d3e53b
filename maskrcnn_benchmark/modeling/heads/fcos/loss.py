"""Losses of FCOS (SipMask spec 2.4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.heads.fcos.box_loss import BOX_LOSSES
from maskrcnn_benchmark.modeling.heads.fcos.outputs import FCOSOutputs, Points, at_points
from maskrcnn_benchmark.modeling.heads.fcos.targets import Assignment, assign, centerness_of
from maskrcnn_benchmark.modeling.heads.focal import focal_loss_of_levels
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.rpn.head import flatten_map
from maskrcnn_benchmark.structures.boxlist import BoxList

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
