"""Losses of RetinaNet over all anchors (Lin et al. 2017, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.losses import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.heads.common import multilevel_focal_loss
from maskrcnn_benchmark.modeling.heads.retinanet.targets import assign_anchors
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.structures.boxlist import BoxList


class RetinaNetLoss:
    """Focal loss of all anchors, smooth L1 of the positive ones."""

    def __init__(
        self,
        matcher: Matcher,
        box_coder: BoxCoder,
        *,
        gamma: float,
        alpha: float,
        beta: float,
        regression_weight: float,
    ) -> None:
        """beta: where smooth L1 turns linear. regression_weight: divides the regression loss."""
        self.matcher = matcher
        self.box_coder = box_coder
        self.gamma = gamma
        self.alpha = alpha
        self.beta = beta
        self.regression_weight = regression_weight

    def __call__(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        targets: Sequence[BoxList],
    ) -> dict[str, LossTerm]:
        """Unnormalised `loss_retina_cls` and `loss_retina_reg` (scalars).

        Per level: anchors (n_l, 4), logits (B, n_l, C), deltas (B, n_l, 4). Counts: positive anchors +
        images; positive anchors * regression_weight.
        """
        all_anchors = torch.cat(list(anchors))
        pairs = [assign_anchors(self.matcher, all_anchors, target) for target in targets]
        labels = torch.stack([label for label, _ in pairs])
        matches = [match for _, match in pairs]
        positives = (labels > 0).sum()
        class_loss = multilevel_focal_loss(logits, labels, gamma=self.gamma, alpha=self.alpha)
        box_loss = self._regression(all_anchors, deltas, labels, matches, targets)
        return {
            "loss_retina_cls": LossTerm(class_loss, positives + len(targets)),
            "loss_retina_reg": LossTerm(box_loss, positives * self.regression_weight),
        }

    def _regression(
        self,
        anchors: Tensor,
        deltas: Sequence[Tensor],
        labels: Tensor,
        matches: Sequence[Tensor],
        targets: Sequence[BoxList],
    ) -> Tensor:
        """Smooth L1 loss (scalar) of the positive ones of anchors (N, 4); labels (B, N), matches B x (N,)."""
        expected, predicted = [], []
        all_deltas = torch.cat(list(deltas), dim=1)
        for i, target in enumerate(targets):
            positive = (labels[i] > 0).nonzero().flatten()
            objects = target.xyxy().to(anchors)[matches[i][positive]]
            expected.append(self.box_coder.encode(objects, anchors[positive]))
            predicted.append(all_deltas[i][positive])
        return smooth_l1_loss(torch.cat(predicted).float(), torch.cat(expected), self.beta)
