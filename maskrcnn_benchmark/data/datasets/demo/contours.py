"""Contour tracing of bitmaps along pixel edges."""

from __future__ import annotations

import numpy as np

Point = tuple[int, int]


def trace(bitmap: np.ndarray) -> list[np.ndarray]:
    """Trace the closed contours of a bool array (H, W): int corner points (K, 2) x, y of each.

    Outer contours run clockwise on the screen (signed area above 0), contours of holes counter-clockwise.
    Pixels that touch only at a corner belong to different contours.
    """
    follow = _edges(bitmap)
    loops = []
    while follow:
        start = next(iter(follow))
        loop: list[Point] = []
        point, heading = start, follow[start][0]
        while point in follow:
            choices = follow[point]
            # at a corner of two contours turn right: stay with the same pixel
            right = (-heading[1], heading[0])
            step = right if right in choices else choices[0]
            choices.remove(step)
            if not choices:
                del follow[point]
            if step != heading or not loop:
                loop.append(point)
            heading = step
            point = (point[0] + step[0], point[1] + step[1])
            if point == start:
                break
        loops.append(np.array(loop))
    return loops


def signed_area(loop: np.ndarray) -> float:
    """Area inside a polygon (K, 2), negative when it runs counter-clockwise on the screen."""
    x, y = loop[:, 0].astype(float), loop[:, 1].astype(float)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _edges(bitmap: np.ndarray) -> dict[Point, list[Point]]:
    """Unit steps along the borders of the set pixels, clockwise around each, by their first corner."""
    padded = np.pad(bitmap, 1)
    inside = padded[1:-1, 1:-1]
    follow: dict[Point, list[Point]] = {}
    sides = (
        (~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (~padded[1:-1, 2:], (1, 0), (0, 1)),
        (~padded[2:, 1:-1], (1, 1), (-1, 0)),
        (~padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    for free, corner, step in sides:
        for y, x in np.argwhere(inside & free).tolist():
            follow.setdefault((x + corner[0], y + corner[1]), []).append(step)
    return follow
