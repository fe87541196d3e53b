"""Mask targets and loss (He et al. 2017, section 3)."""

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
    """Crop the mask of the matched object to every positive box and resize it.

    Returns float32 (sum n_i, size, size) of 0 and 1. positives: per image boxes with field `matched_idxs`;
    targets: ground truth with field `masks`. Raises DataError when the ground truth has no masks.
    """
    device = positives[0].bbox.device
    per_image = [
        _targets_of_image(p, t, size).to(device, torch.float32)
        for p, t in zip(positives, targets, strict=True)
    ]
    return torch.cat(per_image)


def _targets_of_image(positives: BoxList, target: BoxList, size: int) -> Tensor:
    if len(positives) == 0:
        return torch.zeros((0, size, size))
    if not target.has_field("masks"):
        raise DataError(
            "MODEL.MASK_ON is True, but the ground truth has no field 'masks': the annotation file needs "
            "'segmentation' entries, or set MODEL.MASK_ON False"
        )
    masks = target.get_field("masks")
    boxes = positives.xyxy().detach().float()
    # In crowded images few of the objects have positives.
    matched, index = positives.get_field("matched_idxs").unique(return_inverse=True)
    masks = masks[matched]
    if masks.mode == "poly":
        return polygon_mask_targets(masks.polygons(), index, boxes, size, target.size)
    return masks.box_targets(index, boxes, size)


def mask_loss(logits: Tensor, targets: Tensor) -> LossTerm:
    """Return the unnormalised binary cross entropy over all pixels of logits and targets (N, M, M).

    Without any RoI it is a zero connected to the graph.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")
    return LossTerm(total, targets.numel())
