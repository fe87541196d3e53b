"""Outputs of SipMask, and the positives that its mask losses work on (Cao et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.nms import nms
from maskrcnn_benchmark.modeling.heads.common import distances_to_boxes, gather_at_points
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs, Points, Positives
from maskrcnn_benchmark.structures.boxlist import BoxList

GRID = 2
"""Sub-regions per side of a box: each quadrant has coefficients of its own."""
BASIS_STRIDE = 2
"""Pixels of the network input per pixel of the basis masks."""
MIN_AREA = 1.0
"""parity: predicted boxes of this area or less, in pixels of the basis, have no mask loss."""
MIN_WEIGHT_SUM = 1e-12


@dataclass(frozen=True)
class SipMaskOutputs:
    """`boxes`: the outputs of FCOS. `coefficients`: per level (B, 4*K, H, W), quadrant by quadrant (top left,
    top right, bottom left, bottom right), K each. `basis`: (B, K, h, w), at half the size of the network
    input.
    """

    boxes: FCOSOutputs
    coefficients: list[Tensor]
    basis: Tensor


@dataclass(frozen=True)
class MaskPositives:
    """The n positives of one image that have a mask loss: coefficients (n, 4K), predicted boxes (n, 4) in
    pixels of the basis, weights (n,), classes from 0 (n,), object (n,), and the masks (objects, h, w) of all
    objects, bool.
    """

    coefficients: Tensor
    boxes: Tensor
    weights: Tensor
    classes: Tensor
    objects: Tensor
    masks: Tensor


def mask_positives(
    outputs: SipMaskOutputs,
    points: Points,
    positives: Positives,
    targets: Sequence[BoxList],
    *,
    train_nms: float,
    weight_eps: float,
) -> list[MaskPositives]:
    """Select the positives of every image that have a mask loss; boxes and weights carry no gradient.

    train_nms: IoU above which the positive of the lower score is left out, <= 0 for none. weight_eps: added
    to the sum that normalises the weights.
    """
    locations, units = torch.cat(points.locations), torch.cat(points.units)
    result = []
    for image, target in enumerate(targets):
        chosen = (positives.image == image).nonzero().flatten()
        point, objects, where = positives.point[chosen], positives.matches[chosen], positives.image[chosen]
        classes = positives.labels[chosen] - 1
        with torch.no_grad():
            distances = gather_at_points(outputs.boxes.distances, where, point).float() * units[point]
            boxes = distances_to_boxes(locations[point], distances) / BASIS_STRIDE
            logits = gather_at_points(outputs.boxes.logits, where, point)
            scores = logits.gather(1, classes[:, None]).squeeze(1).float().sigmoid()
            object_boxes = target.xyxy().to(boxes)[objects] / BASIS_STRIDE
            keep, weights = _select_and_weigh(boxes, object_boxes, scores, train_nms, weight_eps)
            masks = half_size_masks(target, outputs.basis.shape[-2:]).to(boxes.device)
        result.append(
            MaskPositives(
                gather_at_points(outputs.coefficients, where[keep], point[keep]),
                boxes[keep],
                weights,
                classes[keep],
                objects[keep],
                masks,
            )
        )
    return result


def half_size_masks(target: BoxList, size: Sequence[int]) -> Tensor:
    """Masks (objects, h, w) bool, bilinear at half size, at the top left of `size` (h, w).

    Raises ValueError for a target without masks.
    """
    if not target.has_field("masks"):
        raise ValueError("SipMask trains on masks, but the targets have none; check the annotations")
    bitmaps = target.get_field("masks").to_bitmaps()
    out = torch.zeros((len(bitmaps), *size), dtype=torch.bool)
    height, width = bitmaps.shape[1] // BASIS_STRIDE, bitmaps.shape[2] // BASIS_STRIDE
    if len(bitmaps) and height and width:
        small = F.interpolate(
            bitmaps[:, None].float(), size=(height, width), mode="bilinear", align_corners=False
        )
        rows, columns = min(height, size[0]), min(width, size[1])
        out[:, :rows, :columns] = small[:, 0, :rows, :columns] > 0.5
    return out


def _select_and_weigh(
    boxes: Tensor, object_boxes: Tensor, scores: Tensor, train_nms: float, weight_eps: float
) -> tuple[Tensor, Tensor]:
    """Indices (k,) of the kept ones of n positives and their weights (k,): class score times IoU.

    boxes, object_boxes: (n, 4); scores: (n,). The weights have mean 1 before NMS.
    """
    keep = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > MIN_AREA).nonzero().flatten()
    weights = scores[keep] * _paired_iou(object_boxes[keep], boxes[keep])
    total = (weights.sum() + weight_eps).clamp(min=MIN_WEIGHT_SUM)
    weights = weights / total * len(keep)
    if train_nms > 0 and len(keep):
        chosen = nms(boxes[keep], scores[keep], train_nms)
        keep, weights = keep[chosen], weights[chosen]
    return keep, weights


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (n,) of box i of `a` (n, 4) with box i of `b` (n, 4), inclusive + 1."""
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2]) + 1).clamp(min=0)
    intersection = sides.prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1) for boxes in (a, b)]
    return intersection / (areas[0] + areas[1] - intersection)
