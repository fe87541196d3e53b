"""Mask loss of SipMask and the loss of the mask scores (spec section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.nms import nms
from maskrcnn_benchmark.layers.quadrant_masks import quadrant_mask_loss
from maskrcnn_benchmark.modeling.heads.fcos.loss import Positives
from maskrcnn_benchmark.modeling.heads.fcos.targets import Points, at_points, boxes_around
from maskrcnn_benchmark.modeling.heads.sipmask.outputs import BASIS_STRIDE, SipMaskOutputs
from maskrcnn_benchmark.structures.boxlist import BoxList

LEAST_AREA = 1.0
"""parity: predicted boxes of this area or less, in cells of the basis, have no mask loss."""
SMALLEST_SUM = 1e-12


@dataclass(frozen=True)
class MaskLossSettings:
    """train_nms: overlap above which positives are left out, <= 0 for none. halving: a mean above 1 is halved
    (parity). weight_eps: added to the sum that normalises the weights of the positives.
    """

    train_nms: float
    halving: bool
    weight_eps: float


@dataclass(frozen=True)
class MaskPositives:
    """The n positives of one image that have a mask loss: coefficients (n,4K), predicted boxes (n,4) in cells
    of the basis, weights (n,), classes from 0 (n,), object (n,), and the masks (objects,h,w) of all objects,
    bool.
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
    settings: MaskLossSettings,
) -> list[MaskPositives]:
    """Per image what the mask losses work on; boxes, weights and scores carry no gradient."""
    locations, units = torch.cat(points.locations), torch.cat(points.units)
    result = []
    for image, target in enumerate(targets):
        own = (positives.image == image).nonzero().flatten()
        point, objects, where = positives.point[own], positives.matches[own], positives.image[own]
        classes = positives.labels[own] - 1
        with torch.no_grad():
            reach = at_points(outputs.boxes.distances, where, point).float() * units[point]
            boxes = boxes_around(locations[point], reach) / BASIS_STRIDE
            logits = at_points(outputs.boxes.logits, where, point)
            scores = logits.gather(1, classes[:, None]).squeeze(1).float().sigmoid()
            wanted = target.xyxy().to(boxes)[objects] / BASIS_STRIDE
            keep, weights = _weigh(boxes, wanted, scores, settings)
            masks = half_size_masks(target, outputs.basis.shape[-2:]).to(boxes.device)
        result.append(
            MaskPositives(
                at_points(outputs.coefficients, where[keep], point[keep]),
                boxes[keep],
                weights,
                classes[keep],
                objects[keep],
                masks,
            )
        )
    return result


def _weigh(
    boxes: Tensor, wanted: Tensor, scores: Tensor, settings: MaskLossSettings
) -> tuple[Tensor, Tensor]:
    """Indices of the positives that are kept, and their weights: class score times overlap, mean 1 before
    suppression.
    """
    keep = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > LEAST_AREA).nonzero().flatten()
    weights = scores[keep] * _paired_iou(wanted[keep], boxes[keep])
    total = (weights.sum() + settings.weight_eps).clamp(min=SMALLEST_SUM)
    weights = weights / total * len(keep)
    if settings.train_nms > 0 and len(keep):
        chosen = nms(boxes[keep], scores[keep], settings.train_nms)
        keep, weights = keep[chosen], weights[chosen]
    return keep, weights


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(n,) overlap of box i of `a` with box i of `b`, inclusive + 1."""
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2]) + 1).clamp(min=0)
    common = sides.prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1) for boxes in (a, b)]
    return common / (areas[0] + areas[1] - common)


def half_size_masks(target: BoxList, size: Sequence[int]) -> Tensor:
    """(objects, h, w) bool: masks of the objects, bilinear at half size, at the top left of `size` (h, w)."""
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


def mask_loss(outputs: SipMaskOutputs, found: Sequence[MaskPositives], settings: MaskLossSettings) -> Tensor:
    """Sum over the images of the weighted mean of the positives' binary cross entropies (scalar).

    The loss of a positive is the sum over the pixels in its predicted box, divided by the box's area.
    """
    total = outputs.basis.sum() * 0 + sum(level.sum() for level in outputs.coefficients) * 0
    for image, own in enumerate(found):
        if not len(own.boxes):
            continue
        losses = quadrant_mask_loss(own.coefficients, outputs.basis[image], own.boxes, own.masks, own.objects)
        areas = (own.boxes[:, 2:] - own.boxes[:, :2]).prod(dim=1)
        total = total + (losses / areas * own.weights).sum() / len(own.boxes)
    if settings.halving:
        total = torch.where(total.detach() > len(found), total * 0.5, total)
    return total
