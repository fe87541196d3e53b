"""The points of the feature maps, and boxes as distances from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def level_locations(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> list[Tensor]:
    """Per level (H*W,2) float32 x, y in pixels of the network input, row by row, half a stride from the edge.

    sizes: (H,W) of every map. parity: half of an odd stride is rounded down.
    """
    levels = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y = torch.arange(height, dtype=torch.float32, device=device) * stride + stride // 2
        x = torch.arange(width, dtype=torch.float32, device=device) * stride + stride // 2
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        levels.append(torch.stack((grid_x.flatten(), grid_y.flatten()), dim=1))
    return levels


def boxes_around(locations: Tensor, distances: Tensor) -> Tensor:
    """Boxes (...,4) xyxy of distances (...,4) left, top, right, bottom from locations (...,2)."""
    return torch.cat((locations - distances[..., :2], locations + distances[..., 2:]), dim=-1)
