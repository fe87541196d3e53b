"""Cases of crop split and the quadrant masks; the peer is their composition from torch operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from op_case import Case, Size, backward_of, bind, make_boxes
from timing import size_of
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers import assemble_masks, crop_split, quadrant_mask_loss, quadrant_masks

MAPS, GRID_SIZE, STRIDE, INSTANCES, IMAGES = 32, 2, 2, 100, 10
THRESHOLD = 0.4
# Operations per pixel of a box: a product and a sum per map; a sigmoid; a logarithm and the loss; the slope.
LOGIT, SIGMOID, LOSS, SLOPE = 2 * MAPS, 23, 20, 8


def cell_indices(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The plane each pixel of (H, W, n) reads, and whether it is inside the box."""
    axes = []
    for side, axis in ((width, 0), (height, 1)):
        pixel = torch.arange(side, device=boxes.device)[:, None]
        low, high = boxes[:, axis], boxes[:, axis + 2]
        cell = ((pixel - low) / ((high - low + 0.1) / GRID_SIZE)).long().clamp(0, GRID_SIZE - 1)
        axes.append((cell, (pixel >= low) & (pixel < high)))
    (column, in_x), (row, in_y) = axes
    return row[:, None] * GRID_SIZE + column[None], in_y[:, None] & in_x[None]


def crop_split_by_gather(planes: Tensor, boxes: Tensor) -> Tensor:
    """Crop split of planes (4, H, W, n) as a gather."""
    index, inside = cell_indices(boxes, planes.shape[1], planes.shape[2])
    return planes.gather(0, index[None])[0] * inside


def masks_from_planes(coefficients: Tensor, basis: Tensor, boxes: Tensor) -> Tensor:
    """The planes of all grid cells, then crop split: (n, H, W)."""
    split = coefficients.view(len(coefficients), GRID_SIZE**2, MAPS)
    planes = torch.einsum("nck,khw->chwn", split, basis).sigmoid()
    return crop_split_by_gather(planes, boxes).permute(2, 0, 1)


def quadrant_cases(size: Size, device: torch.device, generator: torch.Generator) -> list[Case]:
    """Quadrant masks of the detections of one image, basis at half its size."""
    height, width = size.height // STRIDE, size.width // STRIDE
    count = min(INSTANCES, size.rois // 8)
    boxes = (make_boxes(count, size, generator) / STRIDE).to(device)
    basis = torch.randn(MAPS, height, width, generator=generator).relu().to(device)
    coefficients = (torch.randn(count, GRID_SIZE**2 * MAPS, generator=generator) / 4).to(device)
    targets = (torch.rand(IMAGES, height, width, generator=generator) > 0.5).to(device)
    index = (torch.arange(count) % IMAGES).to(device)
    pixels = (boxes[:, 2:] - boxes[:, :2]).prod(1).sum().item()
    maps, read = [coefficients, basis], size_of(coefficients, basis)

    def masks(x: list[Tensor]) -> Tensor:
        return quadrant_masks(x[0], x[1], boxes)

    def peer_masks(x: list[Tensor]) -> Tensor:
        return masks_from_planes(x[0], x[1], boxes)

    def loss(x: list[Tensor]) -> Tensor:
        return quadrant_mask_loss(x[0], x[1], boxes, targets, index)

    def peer_loss(x: list[Tensor]) -> Tensor:
        soft, target = masks_from_planes(x[0], x[1], boxes), targets[index].float()
        inside = cell_indices(boxes, height, width)[1].permute(2, 0, 1)
        return F.binary_cross_entropy(soft, target * inside, reduction="none").sum((1, 2))

    def assembled(x: list[Tensor]) -> Tensor:
        sizes = (size.height, size.width, size.height, size.width)
        return assemble_masks(x[0], x[1], boxes, GRID_SIZE, *sizes, THRESHOLD)

    def peer_assembled(x: list[Tensor]) -> Tensor:
        soft = masks_from_planes(x[0], x[1], boxes)[None]
        return F.interpolate(soft, size=(size.height, size.width), mode="bilinear")[0] > THRESHOLD

    def both(name: str, ours: Callable, peer: Callable, operations: float) -> list[Case]:
        return [
            Case(name, bind(ours, maps), bind(peer, maps), read + size_of(ours(maps)), operations * pixels),
            Case(
                f"{name} backward",
                backward_of(ours, maps),
                backward_of(peer, maps),
                2 * read + size_of(ours(maps)),
                (2 * LOGIT + SLOPE + (operations if name.endswith("loss") else 0)) * pixels,
            ),
        ]

    planes = [torch.randn(GRID_SIZE**2, height, width, count, generator=generator).to(device)]
    moved = 2.0 * size_of(planes[0][0])
    return [
        Case(
            "crop_split",
            bind(lambda x: crop_split(x[0], boxes), planes),
            bind(lambda x: crop_split_by_gather(x[0], boxes), planes),
            moved,
            0.0,
        ),
        *both("quadrant_masks", masks, peer_masks, LOGIT + SIGMOID),
        *both("quadrant_mask_loss", loss, peer_loss, LOGIT + SIGMOID + LOSS),
        Case(
            "assemble_masks",
            bind(assembled, maps),
            bind(peer_assembled, maps),
            read + size_of(assembled(maps)),
            (LOGIT + SIGMOID) * pixels,
        ),
    ]
