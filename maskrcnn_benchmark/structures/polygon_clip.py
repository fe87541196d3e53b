"""Polygons cut at the border of an image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def clip_polygon(polygon: Tensor, width: float, height: float) -> Tensor:
    """The part of a flat float32 polygon x0, y0, x1, y1, ... in 0..width and 0..height; may be empty.

    Parts of a concave polygon stay joined by edges along the border, which enclose nothing.
    """
    points = polygon.numpy().astype(np.float64).reshape(-1, 2)
    for axis, side in ((0, width), (1, height)):
        points = _keep_positive(points, points[:, axis])
        points = _keep_positive(points, side - points[:, axis])
    # rounding of the crossings must not lead out again
    return torch.from_numpy(points.clip(0, (width, height)).astype(np.float32).reshape(-1))


def _keep_positive(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(M,2): the closed polygon `points` (N,2) without its part where `distance` (N,), linear, is below 0."""
    inside = distance >= 0
    if inside.all():
        return points
    following, after = np.roll(points, -1, axis=0), np.roll(distance, -1)
    crossing = inside != (after >= 0)
    share = distance / np.where(crossing, distance - after, 1.0)
    crossings = points + share[:, None] * (following - points)
    # every corner inside, and behind it the point where its edge crosses the border
    corners = np.stack([points, crossings], axis=1).reshape(-1, 2)
    return corners[np.stack([inside, crossing], axis=1).reshape(-1)]
