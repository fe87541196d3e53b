"""Losses of RetinaNet over all anchors (core spec 12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.losses import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.heads.common import focal_loss_of_levels
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.matcher import BETWEEN_THRESHOLDS, Matcher
from maskrcnn_benchmark.structures.boxlist import BoxList


def assign(matcher: Matcher, anchors: Tensor, target: BoxList) -> tuple[Tensor, Tensor]:
    """Labels (N,) and matched object (N,), both int64, of xyxy anchors (N,4) of one image.

    Labels: 1..C of the object, 0 background, -1 between the thresholds. The object is -1 where there is none;
    an image without objects is all background.
    """
    matches = matcher.match(target.xyxy().to(anchors), anchors)
    if len(target) == 0:
        return torch.zeros_like(matches), matches
    labels = target.get_field("labels").to(matches)[matches.clamp(min=0)]
    labels = torch.where(matches >= 0, labels, torch.where(matches == BETWEEN_THRESHOLDS, -1, 0))
    return labels, matches.clamp(min=-1)


@dataclass(frozen=True)
class LossSettings:
    """Numbers of both losses; `regression_weight` divides the regression loss."""

    gamma: float
    alpha: float
    beta: float
    regression_weight: float


class RetinaNetLoss:
    """Focal loss of all anchors, smooth L1 of the positive ones."""

    def __init__(self, matcher: Matcher, box_coder: BoxCoder, settings: LossSettings) -> None:
        self.matcher = matcher
        self.box_coder = box_coder
        self.settings = settings

    def __call__(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        targets: Sequence[BoxList],
    ) -> dict[str, LossTerm]:
        """`loss_retina_cls` and `loss_retina_reg`, not yet divided.

        Per level: anchors (n_l,4), logits (B,n_l,classes), deltas (B,n_l,4). Counts: positive anchors +
        images; positive anchors * regression_weight.
        """
        every = torch.cat(list(anchors))
        pairs = [assign(self.matcher, every, target) for target in targets]
        labels = torch.stack([label for label, _ in pairs])
        positives = (labels > 0).sum()
        return {
            "loss_retina_cls": LossTerm(
                focal_loss_of_levels(logits, labels, gamma=self.settings.gamma, alpha=self.settings.alpha),
                positives + len(targets),
            ),
            "loss_retina_reg": LossTerm(
                self._regression(every, deltas, labels, [match for _, match in pairs], targets),
                positives * self.settings.regression_weight,
            ),
        }

    def _regression(
        self,
        anchors: Tensor,
        deltas: Sequence[Tensor],
        labels: Tensor,
        matches: Sequence[Tensor],
        targets: Sequence[BoxList],
    ) -> Tensor:
        wanted, chosen = [], []
        together = torch.cat(list(deltas), dim=1)
        for i, target in enumerate(targets):
            positive = (labels[i] > 0).nonzero().flatten()
            objects = target.xyxy().to(anchors)[matches[i][positive]]
            wanted.append(self.box_coder.encode(objects, anchors[positive]))
            chosen.append(together[i][positive])
        return smooth_l1_loss(torch.cat(chosen).float(), torch.cat(wanted), self.settings.beta)
