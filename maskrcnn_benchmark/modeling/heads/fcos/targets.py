"""Which location of FCOS learns which object (SipMask spec 2.3; FCOS section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.boxlist import BoxList


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


RANGE_IN_STRIDES = 8
"""parity: a level reaches 8 strides far, which makes the published 64, 128, 256, 512 pixels."""
UNLIMITED = 1e8


class Assignment(NamedTuple):
    """Per location: label (N,) int64, 0 is background; distances (N,4) to the sides of its object, in pixels;
    `matches` (N,) int64, the object, -1 for background, whose distances mean nothing.
    """

    labels: Tensor
    distances: Tensor
    matches: Tensor


def assign(
    locations: Sequence[Tensor], strides: Sequence[int], target: BoxList, *, radius: float
) -> Assignment:
    """Objects of one image for the locations of all levels, joined.

    locations: per level (N_l,2) x, y. A location is a candidate of a box that it lies strictly inside of
    (radius > 0: of the part within `radius` strides around its centre) and whose farthest side is in the
    range of its level, both ends included. Of several the box of the smallest area counts, then the first.
    """
    boxes = target.xyxy().float()
    order = target.area().argsort(stable=True)
    parts = []
    for level, (points, stride) in enumerate(zip(locations, strides, strict=True)):
        low = RANGE_IN_STRIDES * strides[level - 1] if level else -1
        high = RANGE_IN_STRIDES * stride if level + 1 < len(strides) else UNLIMITED
        parts.append(_match_level(points, boxes.to(points), order, (low, high), radius * stride))
    matches, distances = (torch.cat(columns) for columns in zip(*parts, strict=True))
    labels = torch.zeros_like(matches)
    if len(target):
        own = target.get_field("labels").to(matches)
        labels = torch.where(matches >= 0, own[matches.clamp(min=0)], labels)
    return Assignment(labels, distances, matches)


def _match_level(
    points: Tensor, boxes: Tensor, order: Tensor, limits: tuple[float, float], reach: float
) -> tuple[Tensor, Tensor]:
    """Object of every point (-1: none) and the distances to its sides; `order`: boxes by rising area."""
    if not len(boxes):
        none = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
        return none, points.new_zeros((len(points), 4))
    sorted_boxes = boxes[order]
    farthest, _ = _range_of(points, sorted_boxes)
    region = sorted_boxes if reach <= 0 else _central_part(sorted_boxes, reach)
    _, nearest = _range_of(points, region)
    candidate = (nearest > 0) & (farthest >= limits[0]) & (farthest <= limits[1])
    first = candidate.to(torch.uint8).argmax(dim=1)  # the first of the largest values: the smallest box
    chosen = order[first]
    x, y = points.unbind(1)
    x1, y1, x2, y2 = boxes[chosen].unbind(1)
    distances = torch.stack((x - x1, y - y1, x2 - x, y2 - y), dim=1)
    return torch.where(candidate.any(dim=1), chosen, -1), distances


def _range_of(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Largest and smallest of the four signed distances, both (N,M), of N points to M boxes."""
    x, y = points[:, :1], points[:, 1:]
    x1, y1, x2, y2 = boxes.unbind(1)
    left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
    largest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
    smallest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
    return largest, smallest


def _central_part(boxes: Tensor, reach: float) -> Tensor:
    """Boxes (M,4) cut to what lies within `reach` pixels of their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = torch.maximum(boxes[:, :2], centre - reach), torch.minimum(boxes[:, 2:], centre + reach)
    return torch.cat((low, high), dim=1)


def centerness_of(distances: Tensor) -> Tensor:
    """(P,) target of the centerness for distances (P,4) of locations inside their boxes, in 0..1."""
    left, top, right, bottom = distances.unbind(1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    along = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * along).sqrt()
