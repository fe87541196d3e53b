"""Losses of the region proposal network (Ren et al. 2015, section 3.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.losses import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.matcher import BETWEEN_THRESHOLDS, Matcher
from maskrcnn_benchmark.modeling.samplers import image_generators, subsample_labels
from maskrcnn_benchmark.structures.boxlist import BoxList

if TYPE_CHECKING:
    from yacs.config import CfgNode

SMOOTH_L1_BETA = 1.0 / 9
"""parity: |difference| at which smooth L1 turns from quadratic to linear."""

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Anchor indices (K,) = image * (anchors per image) + anchor -> logits (K,) and deltas (K, 4)."""


class RPNLoss:
    """Label anchors by IoU, sample a fixed number per image, compute objectness and regression losses."""

    def __init__(
        self, matcher: Matcher, box_coder: BoxCoder, *, batch_size_per_image: int, positive_fraction: float
    ) -> None:
        self.matcher = matcher
        self.box_coder = box_coder
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    @classmethod
    def from_cfg(cls, cfg: CfgNode, box_coder: BoxCoder) -> RPNLoss:
        """Build from MODEL.RPN."""
        node = cfg.MODEL.RPN
        matcher = Matcher(
            node.FG_IOU_THRESHOLD,
            node.BG_IOU_THRESHOLD,
            allow_low_quality=True,
            zero_iou_matches=node.ZERO_OVERLAP_MATCHES,
        )
        return cls(
            matcher,
            box_coder,
            batch_size_per_image=node.BATCH_SIZE_PER_IMAGE,
            positive_fraction=node.POSITIVE_FRACTION,
        )

    def label_anchors(self, anchors: Tensor, visible: Tensor, target: BoxList) -> tuple[Tensor, Tensor]:
        """Return labels int64 (N,) and the index (N,) of the matched ground truth, -1 for none.

        Labels: 1 object, 0 background, -1 ignored. anchors: (N, 4) xyxy of all levels of one image; visible:
        (N,) bool. An image without objects is all background.
        """
        matches = self.matcher.match(target.xyxy().to(anchors), anchors)
        labels = (matches >= 0).to(torch.int64)
        ignored = (matches == BETWEEN_THRESHOLDS) | ~visible
        return torch.where(ignored, -1, labels), matches.clamp(min=-1)

    def __call__(
        self,
        anchors: Tensor,
        visible: Sequence[Tensor],
        predict: Predict,
        targets: Sequence[BoxList],
        seeds: Sequence[int] | None = None,
    ) -> dict[str, LossTerm]:
        """Return unnormalised `loss_objectness` and `loss_rpn_box_reg`.

        anchors: (N, 4) xyxy; visible: per image (N,) bool; predict: called once, with the sampled anchors;
        seeds: one per image, see image_generators. Objectness: binary cross entropy over the sampled
        anchors; regression: smooth L1 over the positives; both are normalised by the number of sampled
        anchors. Without any sampled anchor both are zeros connected to the graph.
        """
        num_anchors = len(anchors)
        generators = image_generators(seeds, "rpn", len(targets), anchors.device)
        sampled_pos, sampled_neg, delta_targets = [], [], []
        for i, target in enumerate(targets):
            labels, matches = self.label_anchors(anchors, visible[i], target)
            positive, negative = subsample_labels(
                labels, self.batch_size_per_image, self.positive_fraction, generators[i]
            )
            sampled_pos.append(positive + i * num_anchors)
            sampled_neg.append(negative + i * num_anchors)
            matched = target.xyxy().to(anchors)[matches[positive]]
            delta_targets.append(self.box_coder.encode(matched, anchors[positive]))
        positive, negative = torch.cat(sampled_pos), torch.cat(sampled_neg)
        logits, deltas = predict(torch.cat((positive, negative)))
        labels = torch.cat((torch.ones_like(positive), torch.zeros_like(negative))).to(logits.dtype)
        regression = smooth_l1_loss(deltas[: len(positive)], torch.cat(delta_targets), SMOOTH_L1_BETA)
        objectness = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return {
            "loss_objectness": LossTerm(objectness, len(logits)),
            "loss_rpn_box_reg": LossTerm(regression, len(logits)),
        }
