"""Losses of FCOS (SipMask spec 2.4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.focal_loss import sigmoid_focal_loss
from maskrcnn_benchmark.modeling.heads.fcos.box_loss import BOX_LOSSES
from maskrcnn_benchmark.modeling.heads.fcos.outputs import FCOSOutputs, Points, joined, per_point
from maskrcnn_benchmark.modeling.heads.fcos.targets import Assignment, assign, centerness_of
from maskrcnn_benchmark.modeling.losses import LossTerm
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
        predicted = joined(outputs.distances)[at].float()
        centerness = joined(outputs.centerness)[at].squeeze(1).float()
        weight = centerness_of(positives.wanted)
        boxes = (BOX_LOSSES[self.settings.box_loss](predicted, positives.wanted) * weight).sum()
        middle = F.binary_cross_entropy_with_logits(centerness, weight, reduction="sum")
        classes = self._classification(outputs.logits, labels)
        return {
            "loss_cls": LossTerm(classes, count + (len(labels) if own else 0), per_process=own),
            "loss_reg": LossTerm(boxes, weight.sum(), least=SMALLEST_WEIGHT, per_process=own),
            "loss_centerness": LossTerm(middle, count, per_process=own),
        }

    def _classification(self, logits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Sum over levels; the maps, which hold millions of numbers, are not put together."""
        rows = per_point(logits)
        parts = labels.split([level.shape[1] for level in rows], dim=1)
        gamma, alpha = self.settings.gamma, self.settings.alpha
        sums = [
            sigmoid_focal_loss(level.flatten(0, 1), part.flatten(), gamma=gamma, alpha=alpha)
            for level, part in zip(rows, parts, strict=True)
        ]
        return torch.stack(sums).sum()
