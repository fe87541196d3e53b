"""Cases of the operations benchmark: sizes, inputs, calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timing import Call
from torch import Tensor


@dataclass(frozen=True)
class Size:
    """An image with its features and boxes."""

    name: str
    height: int
    width: int
    channels: int
    rois: int
    pooled: int
    boxes: int  # for nms


@dataclass(frozen=True)
class Case:
    """Ours and the peer (None where torchvision has no such operation) on the same input.

    moved and operations are the min bytes and operations of the call.
    """

    op: str
    ours: Call
    peer: Call | None
    moved: float
    operations: float


def make_boxes(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Boxes (count, 4) inside the image, sides from 12 pixels to the image, log-uniform."""
    limits = torch.tensor([size.width, size.height]) - 1.0
    sides = 12 * (limits / 12) ** torch.rand(count, 2, generator=generator)
    corner = (limits - sides) * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + sides], dim=1)


def bind(function: Callable[[list[Tensor]], Tensor], maps: list[Tensor]) -> Call:
    """A call of `function` with `maps`."""
    return lambda: function(maps)


def backward_of(function: Callable[[list[Tensor]], Tensor], maps: list[Tensor]) -> Call:
    """A repeatable call of the backward pass alone."""
    leaves = [m.detach().requires_grad_() for m in maps]
    out = function(leaves)
    cotangent = torch.ones_like(out)
    # A peer may skip a level without boxes.
    return lambda: torch.autograd.grad(out, leaves, cotangent, retain_graph=True, allow_unused=True)
