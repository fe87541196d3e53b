"""Losses of SipMask: those of FCOS, the mask loss, and the loss of the mask scores of SipMask++."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.quadrant_masks import quadrant_mask_loss, quadrant_masks
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss
from maskrcnn_benchmark.modeling.heads.fcos.targets import Points
from maskrcnn_benchmark.modeling.heads.sipmask.targets import MaskPositives, SipMaskOutputs, mask_positives
from maskrcnn_benchmark.modeling.heads.sipmask.towers import SipMaskTowers
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList

SCORE_LOSS_WEIGHT = 10.0
MIN_OBJECT = 100
"""parity: objects of fewer pixels of the basis do not train the scores."""
MIN_IOU = 0.1
EPS = 0.1


class SipMaskLoss:
    """Losses of FCOS, of the masks, and with mask scores of these."""

    def __init__(
        self, fcos: FCOSLoss, *, train_nms: float, weight_eps: float, halving: bool, mask_threshold: float
    ) -> None:
        """train_nms, weight_eps: see mask_positives. halving: a mask loss above 1 is halved (parity).
        mask_threshold: probability above which a pixel belongs to a mask.
        """
        self.fcos = fcos
        self.train_nms = train_nms
        self.weight_eps = weight_eps
        self.halving = halving
        self.mask_threshold = mask_threshold

    def __call__(
        self, outputs: SipMaskOutputs, points: Points, targets: Sequence[BoxList], towers: SipMaskTowers
    ) -> dict[str, LossTerm]:
        """Unnormalised losses (scalars); the targets need masks of the size of their image."""
        labels, positives = self.fcos.assign(points, targets)
        losses = self.fcos.of_positives(outputs.boxes, labels, positives)
        per_image = mask_positives(
            outputs, points, positives, targets, train_nms=self.train_nms, weight_eps=self.weight_eps
        )
        losses["loss_mask"] = LossTerm(
            basis_mask_loss(outputs, per_image, halving=self.halving), len(targets)
        )
        if towers.rescoring:
            losses["loss_mask_score"] = mask_score_loss(outputs.basis, per_image, towers, self.mask_threshold)
        return losses


def basis_mask_loss(outputs: SipMaskOutputs, positives: Sequence[MaskPositives], *, halving: bool) -> Tensor:
    """Mask loss, summed over the images (scalar): weighted mean of the positives' binary cross entropies.

    The loss of a positive is the sum over the pixels in its predicted box, divided by the box's area.
    halving: a mean over images above 1 is halved (parity).
    """
    total = outputs.basis.sum() * 0 + sum(level.sum() for level in outputs.coefficients) * 0
    for image, chosen in enumerate(positives):
        if not len(chosen.boxes):
            continue
        basis, boxes = outputs.basis[image], chosen.boxes
        losses = quadrant_mask_loss(chosen.coefficients, basis, boxes, chosen.masks, chosen.objects)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        total = total + (losses / areas * chosen.weights).sum() / len(boxes)
    if halving:
        total = torch.where(total.detach() > len(positives), total * 0.5, total)
    return total


def mask_score_loss(
    basis: Tensor, positives: Sequence[MaskPositives], towers: SipMaskTowers, mask_threshold: float
) -> LossTerm:
    """Squared difference between expected and true IoU of the predicted masks with their objects (scalar).

    basis: (B, K, h, w). Only the scoring layers of `towers` learn from it.
    """
    total = torch.stack([parameter.sum() for parameter in towers.scoring_parameters()]).sum() * 0
    count = basis.new_zeros((), dtype=torch.float32)
    for image, chosen in enumerate(positives):
        if not len(chosen.boxes):
            continue
        with torch.no_grad():
            planes = quadrant_masks(chosen.coefficients, basis[image], chosen.boxes)
            iou, weight = _true_iou(planes > mask_threshold, chosen.masks[chosen.objects])
        expected = towers.score_masks(planes)
        rows = torch.arange(len(expected), device=expected.device)
        total = total + (weight * (expected[rows, chosen.classes].float() - iou).square()).sum()
        count = count + weight.sum()
    return LossTerm(SCORE_LOSS_WEIGHT * total, count + EPS, least=EPS, per_process=True)


def _true_iou(masks: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """IoU (n,) of masks (n, h, w) with objects (n, h, w), both bool, and weight (n,), 1 where it is used."""
    intersection, area, size = ((m.flatten(1).sum(dim=1)).float() for m in (masks & objects, masks, objects))
    iou = intersection / (area + size - intersection + EPS)
    weight = (iou > MIN_IOU) & (iou <= 1) & (size >= MIN_OBJECT)
    return iou, weight.float()
