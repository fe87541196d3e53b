"""What FCOS computes, and its view point by point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.heads.fcos.locations import level_locations


@dataclass(frozen=True)
class FCOSOutputs:
    """Per level: class logits (B,classes,H,W), distances (B,4,H,W) left, top, right, bottom, centerness
    logits (B,1,H,W). Distances are in strides of the level with normalised targets, else in pixels.
    """

    logits: list[Tensor]
    distances: list[Tensor]
    centerness: list[Tensor]

    def map_sizes(self) -> list[tuple[int, int]]:
        """(H,W) per level."""
        return [(level.shape[-2], level.shape[-1]) for level in self.logits]


@dataclass(frozen=True)
class Points:
    """The locations of all levels: per level `locations` (N_l,2) and `units` (N_l,1), pixels per unit of
    distance.
    """

    locations: list[Tensor]
    units: list[Tensor]

    @classmethod
    def of(cls, outputs: FCOSOutputs, strides: Sequence[int], *, in_strides: bool) -> Points:
        """For the maps of `outputs`; in_strides: distances are in strides."""
        locations = level_locations(outputs.map_sizes(), strides, outputs.logits[0].device)
        pairs = zip(locations, strides, strict=True)
        return cls(locations, [p.new_full((len(p), 1), s if in_strides else 1) for p, s in pairs])


def at_points(maps: Sequence[Tensor], image: Tensor, point: Tensor) -> Tensor:
    """(n,C) of points (n,), counted over all levels, of images (n,); maps: per level (B,C,H,W)."""
    rows, start = maps[0].new_empty((len(point), maps[0].shape[1])), 0
    for level in maps:
        height, width = level.shape[-2:]
        own = ((point >= start) & (point < start + height * width)).nonzero().flatten()
        cell = point[own] - start
        row = torch.div(cell, width, rounding_mode="floor")
        rows = rows.index_put((own,), level[image[own], :, row, cell % width])
        start += height * width
    return rows
