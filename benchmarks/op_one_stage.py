"""Cases of RoI max pooling and of the sigmoid focal loss."""

from __future__ import annotations

import torch
import torchvision
from op_case import Case, Size, backward_of, bind, make_boxes
from timing import size_of
from torch import Tensor

from maskrcnn_benchmark.layers import roi_pool, sigmoid_focal_loss

STRIDE = 8
CLASSES, ANCHORS = 80, 9
OBJECTS = 10
GAMMA, ALPHA = 2.0, 0.25
# Operations per logit: absolute value, an exponential (19), a logarithm (16), a reciprocal, products and
# choices of the loss (10); three more for the slope.
LOSS, SLOPE = 47, 50


def pool_cases(size: Size, device: torch.device, generator: torch.Generator) -> list[Case]:
    """roi_pool at stride 8, forward and backward: a comparison per pixel, an addition per bin."""
    map_size = (size.height // STRIDE, size.width // STRIDE)
    feature = torch.randn(1, size.channels, *map_size, generator=generator).to(device)
    boxes = make_boxes(size.rois, size, generator)
    rois = torch.cat([torch.zeros(size.rois, 1), boxes], dim=1).to(device)
    side, scale = (size.pooled, size.pooled), 1 / STRIDE
    pixels = ((boxes[:, 2:] - boxes[:, :2]) * scale + 1).prod(1).sum().item() * size.channels
    bins = float(size.rois * size.channels * size.pooled**2)

    def ours(x: list[Tensor]) -> Tensor:
        return roi_pool(x[0], rois, side, scale)

    def peer(x: list[Tensor]) -> Tensor:
        return torchvision.ops.roi_pool(x[0], rois, side, scale)

    read = min(size_of(feature), 4 * pixels)
    return [
        Case("roi_pool", bind(ours, [feature]), bind(peer, [feature]), 8 * bins + read, pixels),
        Case(
            "roi_pool backward",
            backward_of(ours, [feature]),
            backward_of(peer, [feature]),
            8 * bins + size_of(feature),
            bins,
        ),
    ]


def focal_cases(size: Size, device: torch.device, generator: torch.Generator) -> list[Case]:
    """The sum over the anchors of RetinaNet on one image; torchvision takes a map of zeros and ones."""
    strides = (8, 16, 32, 64, 128)
    rows = ANCHORS * sum(-(-size.height // s) * -(-size.width // s) for s in strides)
    logits = (torch.randn(rows, CLASSES, generator=generator) - 4).to(device)
    targets = torch.zeros(rows, dtype=torch.int64)
    positives = torch.randint(0, rows, (4 * OBJECTS,), generator=generator)
    targets[positives] = torch.randint(1, CLASSES + 1, (len(positives),), generator=generator)
    targets = targets.to(device)
    ones = torch.nn.functional.one_hot(targets, CLASSES + 1)[:, 1:].float()

    def ours(x: list[Tensor]) -> Tensor:
        return sigmoid_focal_loss(x[0], targets, gamma=GAMMA, alpha=ALPHA)

    def peer(x: list[Tensor]) -> Tensor:
        return torchvision.ops.sigmoid_focal_loss(x[0], ones, ALPHA, GAMMA, reduction="sum")

    elements, read = float(logits.numel()), size_of(logits, targets)
    return [
        Case("sigmoid_focal_loss", bind(ours, [logits]), bind(peer, [logits]), read, LOSS * elements),
        Case(
            "sigmoid_focal_loss backward",
            backward_of(ours, [logits]),
            backward_of(peer, [logits]),
            read + size_of(logits),
            SLOPE * elements,
        ),
    ]
