"""Mask scores of SipMask++: how well a predicted mask will overlap its object (spec section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.quadrant_masks import quadrant_masks
from maskrcnn_benchmark.modeling.conv import kaiming_normal_init, normal_init
from maskrcnn_benchmark.modeling.heads.sipmask.mask_loss import MaskPositives
from maskrcnn_benchmark.modeling.losses import LossTerm

WIDTHS = (1, 16, 16, 16, 32, 64, 128)
LEAST_SIDE = 127
"""Cells that a plane needs so that something is left after six convolutions of stride 2 without padding."""
LOSS_WEIGHT = 10.0
LEAST_OBJECT = 100
"""parity: objects of fewer cells do not train the scores."""
LEAST_OVERLAP = 0.1
EPS = 0.1


def scoring_layers(num_classes: int) -> tuple[nn.ModuleList, nn.Conv2d]:
    """Six convolutions of stride 2 without padding, and one more to a number per class."""
    convs = nn.ModuleList([kaiming_normal_init(nn.Conv2d(a, b, 3, stride=2)) for a, b in pairwise(WIDTHS)])
    return convs, normal_init(nn.Conv2d(WIDTHS[-1], num_classes, 1), 0.001)


def score_masks(planes: Tensor, convs: nn.ModuleList, last: nn.Module) -> Tensor:
    """Soft masks (n,h,w), zero outside their boxes -> expected overlaps (n,classes), none negative.

    Raises ValueError for planes smaller than LEAST_SIDE.
    """
    if min(planes.shape[1:]) < LEAST_SIDE:
        raise ValueError(
            f"mask scores need planes of at least {LEAST_SIDE} x {LEAST_SIDE} cells (images of twice "
            f"that), got {tuple(planes.shape[1:])}; use larger images or MODEL.SIPMASK.RESCORING False"
        )
    x = planes[:, None]
    for conv in convs:
        x = F.relu(conv(x))
    return F.relu(last(x)).amax(dim=(2, 3))


def rescoring_loss(
    basis: Tensor, found: Sequence[MaskPositives], convs: nn.ModuleList, last: nn.Module, threshold: float
) -> LossTerm:
    """Squared difference between expected and true overlap of the predicted masks with their objects.

    basis: (B,K,h,w); threshold: probability above which a cell belongs to a mask. Only the layers given here
    learn from it.
    """
    parameters = [*convs.parameters(), *last.parameters()]
    total = torch.stack([parameter.sum() for parameter in parameters]).sum() * 0
    count = basis.new_zeros((), dtype=torch.float32)
    for image, own in enumerate(found):
        if not len(own.boxes):
            continue
        with torch.no_grad():
            planes = quadrant_masks(own.coefficients, basis[image], own.boxes)
            overlap, weight = _true_overlap(planes > threshold, own.masks[own.objects])
        expected = score_masks(planes, convs, last)
        rows = torch.arange(len(expected), device=expected.device)
        total = total + (weight * (expected[rows, own.classes].float() - overlap).square()).sum()
        count = count + weight.sum()
    return LossTerm(LOSS_WEIGHT * total, count + EPS, least=EPS, per_process=True)


def _true_overlap(masks: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Overlap (n,) of masks (n,h,w) with objects (n,h,w), both bool, and whether it trains the scores."""
    common, area, size = ((m.flatten(1).sum(dim=1)).float() for m in (masks & objects, masks, objects))
    overlap = common / (area + size - common + EPS)
    weight = (overlap > LEAST_OVERLAP) & (overlap <= 1) & (size >= LEAST_OBJECT)
    return overlap, weight.float()
