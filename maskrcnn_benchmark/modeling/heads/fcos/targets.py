"""FCOS target assignment: which location learns which object (Tian et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.heads.common import grid_locations
from maskrcnn_benchmark.structures.boxlist import BoxList

RANGE_IN_STRIDES = 8
"""parity: a level regresses up to 8 strides, which makes the published 64, 128, 256, 512 pixels."""
UNLIMITED = 1e8


@dataclass(frozen=True)
class FCOSOutputs:
    """Per level: class logits (B, C, H, W), distances (B, 4, H, W) left, top, right, bottom, centerness
    logits (B, 1, H, W). Distances are in strides of the level with normalised targets, else in pixels.
    """

    logits: list[Tensor]
    distances: list[Tensor]
    centerness: list[Tensor]

    def map_sizes(self) -> list[tuple[int, int]]:
        """(H, W) per level."""
        return [(level.shape[-2], level.shape[-1]) for level in self.logits]


@dataclass(frozen=True)
class Points:
    """Locations of all levels: per level `locations` (N_l, 2) and `units` (N_l, 1), pixels per unit of
    distance.
    """

    locations: list[Tensor]
    units: list[Tensor]

    @classmethod
    def of(cls, outputs: FCOSOutputs, strides: Sequence[int], *, in_strides: bool) -> Points:
        """Locations of the maps of `outputs`; in_strides: their distances are in strides, not pixels."""
        locations = grid_locations(outputs.map_sizes(), strides, outputs.logits[0].device)
        pairs = zip(locations, strides, strict=True)
        return cls(locations, [p.new_full((len(p), 1), s if in_strides else 1) for p, s in pairs])


@dataclass(frozen=True)
class Positives:
    """The P positive locations of a batch: `image` and `point` (P,) say which they are, `matches` (P,) their
    object, `labels` (P,) its class 1..C, `distances` (P, 4) to its sides in units of the outputs.
    """

    image: Tensor
    point: Tensor
    matches: Tensor
    labels: Tensor
    distances: Tensor

    def __len__(self) -> int:
        """Number of positive locations."""
        return len(self.image)


def batch_targets(
    points: Points, strides: Sequence[int], targets: Sequence[BoxList], *, radius: float
) -> tuple[Tensor, Positives]:
    """Labels (B, N) of all locations, 0 is background, and the targets of the positive ones."""
    per_image = [assign_locations(points.locations, strides, target, radius=radius) for target in targets]
    labels = torch.stack([assignment.labels for assignment in per_image])
    image, point = (labels > 0).nonzero().unbind(1)
    units = torch.cat(points.units)
    distances = torch.stack([assignment.distances for assignment in per_image])[image, point] / units[point]
    matches = torch.stack([assignment.matches for assignment in per_image])[image, point]
    return labels, Positives(image, point, matches, labels[image, point], distances)


class LocationTargets(NamedTuple):
    """Per location: label (N,) int64, 0 is background; distances (N, 4) to the sides of its object in pixels;
    `matches` (N,) int64, its object, -1 for background, whose distances mean nothing.
    """

    labels: Tensor
    distances: Tensor
    matches: Tensor


def assign_locations(
    locations: Sequence[Tensor], strides: Sequence[int], target: BoxList, *, radius: float
) -> LocationTargets:
    """Assign the objects of one image to the locations of all levels, concatenated.

    locations: per level (N_l, 2) x, y. A location is a candidate of a box that it lies strictly inside of
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
        object_labels = target.get_field("labels").to(matches)
        labels = torch.where(matches >= 0, object_labels[matches.clamp(min=0)], labels)
    return LocationTargets(labels, distances, matches)


def _match_level(
    points: Tensor, boxes: Tensor, order: Tensor, limits: tuple[float, float], reach: float
) -> tuple[Tensor, Tensor]:
    """Object (N,) of every point, -1 for none, and distances (N, 4) to its sides; `order`: boxes by area."""
    if not len(boxes):
        none = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
        return none, points.new_zeros((len(points), 4))
    sorted_boxes = boxes[order]
    farthest, _ = _distance_range(points, sorted_boxes)
    region = sorted_boxes if reach <= 0 else _central_part(sorted_boxes, reach)
    _, nearest = _distance_range(points, region)
    candidate = (nearest > 0) & (farthest >= limits[0]) & (farthest <= limits[1])
    first = candidate.to(torch.uint8).argmax(dim=1)  # the first of the largest values: the smallest box
    chosen = order[first]
    x, y = points.unbind(1)
    x1, y1, x2, y2 = boxes[chosen].unbind(1)
    distances = torch.stack((x - x1, y - y1, x2 - x, y2 - y), dim=1)
    return torch.where(candidate.any(dim=1), chosen, -1), distances


def _distance_range(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Largest and smallest of the four signed distances, both (N, M), of N points to M boxes."""
    x, y = points[:, :1], points[:, 1:]
    x1, y1, x2, y2 = boxes.unbind(1)
    left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
    largest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
    smallest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
    return largest, smallest


def _central_part(boxes: Tensor, reach: float) -> Tensor:
    """Boxes (M, 4) clipped to what lies within `reach` pixels of their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = torch.maximum(boxes[:, :2], centre - reach), torch.minimum(boxes[:, 2:], centre + reach)
    return torch.cat((low, high), dim=1)


def centerness_target(distances: Tensor) -> Tensor:
    """Centerness (P,) in 0..1 for distances (P, 4) of locations inside their boxes (section 3.3)."""
    left, top, right, bottom = distances.unbind(1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    along = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * along).sqrt()
