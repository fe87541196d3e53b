"""Mask targets and loss (core spec 10)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.masks import polygon_mask_targets
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError


def mask_targets(positives: Sequence[BoxList], targets: Sequence[BoxList], size: int) -> Tensor:
    """Float32 (sum n_i, size, size) of 0 and 1: the matched object's mask, cropped by the box and resized.

    positives: per image boxes with field `matched_idxs`; targets: ground truth with field `masks`. Raises
    DataError when the ground truth has no masks.
    """
    device = positives[0].bbox.device
    parts = [
        _one_image(p, t, size).to(device, torch.float32) for p, t in zip(positives, targets, strict=True)
    ]
    return torch.cat(parts)


def _one_image(positives: BoxList, target: BoxList, size: int) -> Tensor:
    if len(positives) == 0:
        return torch.zeros((0, size, size))
    if not target.has_field("masks"):
        raise DataError(
            "MODEL.MASK_ON is True, but the ground truth has no field 'masks': the annotation file needs "
            "'segmentation' entries, or set MODEL.MASK_ON False"
        )
    masks = target.get_field("masks")
    boxes = positives.xyxy().detach().float()
    used, index = positives.get_field("matched_idxs").unique(
        return_inverse=True
    )  # crowded images: few of the objects have positives
    masks = masks[used]
    if masks.mode == "poly":
        return polygon_mask_targets(masks.polygons(), index, boxes, size, target.size)
    return masks.box_targets(index, boxes, size)


def mask_loss(logits: Tensor, targets: Tensor) -> LossTerm:
    """Binary cross entropy over all pixels of logits and targets (N,M,M), not yet divided by their number.

    No region: a zero connected to the graph.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")
    return LossTerm(total, targets.numel())
