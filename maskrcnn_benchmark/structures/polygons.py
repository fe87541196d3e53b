"""Polygons of one object: reading those of an annotation, cutting them at a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MIN_POLYGON_VALUES = 6  # three points
MAX_COORDINATE = 2**20
"""Pixels; a coordinate beyond it is no part of any image."""


def read_polygons(
    entry: Sequence[Any], size: tuple[float, float], dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Read the polygons of an annotation in an image of `size` (width, height).

    Returns flat tensors (2 * points,) x0, y0, x1, y1, ... of three points or more; shorter parts enclose
    nothing and are left out. Raises ValueError when coordinates are no finite numbers, beyond MAX_COORDINATE,
    not x, y in turn, when a polygon is written as a list of points, and when the only part is four values
    that are a box x, y, width, height inside the image.
    """
    if len(entry) > 2 and all(isinstance(part, list | tuple) and len(part) == 2 for part in entry):
        raise ValueError(
            f"a polygon written as {len(entry)} points [x, y]; write it as one flat list: [[x, y, x, y, ...]]"
        )
    parts = [_flat(part, dtype) for part in entry]
    if len(parts) == 1 and len(parts[0]) == 4 and _is_box(parts[0].tolist(), size):
        raise ValueError(
            "a box in the place of a polygon; give the outline x, y, x, y, ... or an empty list for no mask"
        )
    return [part for part in parts if len(part) >= MIN_POLYGON_VALUES]


def _is_box(values: list[float], size: tuple[float, float]) -> bool:
    """Whether x, y, width, height describe a box inside an image of `size` (width, height)."""
    x, y, width, height = values
    inside = min(x, y) >= 0 and x + width <= size[0] and y + height <= size[1]
    return inside and min(width, height) > 0


def _flat(values: Any, dtype: torch.dtype) -> Tensor:
    """Convert to flat (2 * points,) x0, y0, x1, y1, ...; ValueError for anything else."""
    try:
        polygon = torch.as_tensor(values, dtype=dtype).reshape(-1)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"a polygon is a list of numbers x, y, x, y, ... ({str(error)[:80]})") from None
    if len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon)} values; they must be pairs x, y, x, y, ...")
    if not bool((polygon.abs() <= MAX_COORDINATE).all()):
        raise ValueError(f"a polygon with coordinates that are not finite or beyond {MAX_COORDINATE} pixels")
    return polygon


def clip_polygon(polygon: Tensor, width: float, height: float) -> Tensor:
    """Clip a flat float32 polygon (2 * points,) x0, y0, x1, y1, ... to 0..width, 0..height; may become empty.

    Sutherland-Hodgman clipping: parts of a concave polygon stay joined by edges along the border, which
    enclose nothing.
    """
    points = polygon.numpy().astype(np.float64).reshape(-1, 2)
    for axis, side in ((0, width), (1, height)):
        points = _clip_half_plane(points, points[:, axis])
        points = _clip_half_plane(points, side - points[:, axis])
    # rounding of the crossings must not lead out again
    return torch.from_numpy(points.clip(0, (width, height)).astype(np.float32).reshape(-1))


def _clip_half_plane(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Closed polygon (M, 2): `points` (N, 2) without the part where the linear `distance` (N,) is below 0."""
    inside = distance >= 0
    if inside.all():
        return points
    following, after = np.roll(points, -1, axis=0), np.roll(distance, -1)
    crossing = inside != (after >= 0)
    fraction = distance / np.where(crossing, distance - after, 1.0)
    crossings = points + fraction[:, None] * (following - points)
    # every corner inside, and behind it the point where its edge crosses the border
    corners = np.stack([points, crossings], axis=1).reshape(-1, 2)
    return corners[np.stack([inside, crossing], axis=1).reshape(-1)]
