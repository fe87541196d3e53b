"""Losses of the region proposal network (core spec 7, "Loss")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.losses import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.matcher import BETWEEN, Matcher
from maskrcnn_benchmark.modeling.samplers import image_generators, sample_labels
from maskrcnn_benchmark.structures.boxlist import BoxList

if TYPE_CHECKING:
    from yacs.config import CfgNode

SMOOTH_L1_BETA = 1.0 / 9
"""parity: where the regression loss turns from square to linear."""

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Logits (K,) and deltas (K,4) of anchors by their numbers (K,): image * (anchors per image) + anchor."""


class RPNLoss:
    """Objectness and regression losses over sampled anchors."""

    def __init__(
        self, matcher: Matcher, box_coder: BoxCoder, *, batch_size_per_image: int, positive_fraction: float
    ) -> None:
        self.matcher = matcher
        self.box_coder = box_coder
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    @classmethod
    def from_cfg(cls, cfg: CfgNode, box_coder: BoxCoder) -> RPNLoss:
        """From MODEL.RPN."""
        node = cfg.MODEL.RPN
        matcher = Matcher(
            node.FG_IOU_THRESHOLD,
            node.BG_IOU_THRESHOLD,
            allow_low_quality=True,
            zero_overlap_matches=node.ZERO_OVERLAP_MATCHES,
        )
        return cls(
            matcher,
            box_coder,
            batch_size_per_image=node.BATCH_SIZE_PER_IMAGE,
            positive_fraction=node.POSITIVE_FRACTION,
        )

    def assign(self, anchors: Tensor, visible: Tensor, target: BoxList) -> tuple[Tensor, Tensor]:
        """Labels (N,) int64 and matched ground truth (N,), -1 where none.

        Labels: 1 object, 0 background, -1 not used.
        anchors (N,4) xyxy of all levels of one image, visible (N,)
        bool. An image without objects is all background.
        """
        matches = self.matcher.match(target.xyxy().to(anchors), anchors)
        labels = (matches >= 0).to(torch.int64)
        unused = (matches == BETWEEN) | ~visible
        return torch.where(unused, -1, labels), matches.clamp(min=-1)

    def __call__(
        self,
        anchors: Tensor,
        visible: Sequence[Tensor],
        predict: Predict,
        targets: Sequence[BoxList],
        seeds: Sequence[int] | None = None,
    ) -> dict[str, LossTerm]:
        """`loss_objectness` and `loss_rpn_box_reg`, not yet divided.

        anchors (N,4), visible: per image (N,) bool; predict is called once, with the sampled anchors;
        seeds: one per image, see image_generators. Objectness: binary cross entropy over the sampled
        anchors; regression: smooth L1 over the positives; the count of both is that of all sampled anchors.
        Without any sampled anchor both are zeros connected to the graph.
        """
        count = len(anchors)
        generators = image_generators(seeds, "rpn", len(targets), anchors.device)
        sampled_pos, sampled_neg, box_targets = [], [], []
        for i, target in enumerate(targets):
            labels, matches = self.assign(anchors, visible[i], target)
            positive, negative = sample_labels(
                labels, self.batch_size_per_image, self.positive_fraction, generators[i]
            )
            sampled_pos.append(positive + i * count)
            sampled_neg.append(negative + i * count)
            matched = target.xyxy().to(anchors)[matches[positive]]
            box_targets.append(self.box_coder.encode(matched, anchors[positive]))
        positive, negative = torch.cat(sampled_pos), torch.cat(sampled_neg)
        chosen, deltas = predict(torch.cat((positive, negative)))
        wanted = torch.cat((torch.ones_like(positive), torch.zeros_like(negative))).to(chosen.dtype)
        regression = smooth_l1_loss(deltas[: len(positive)], torch.cat(box_targets), SMOOTH_L1_BETA)
        objectness = F.binary_cross_entropy_with_logits(chosen, wanted, reduction="sum")
        return {
            "loss_objectness": LossTerm(objectness, len(chosen)),
            "loss_rpn_box_reg": LossTerm(regression, len(chosen)),
        }
