"""Outlines of the demo objects as polygons around the origin, inside the unit circle."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def _ring(count: int, radii: tuple[float, ...] = (1.0,), start: float = -math.pi / 2) -> np.ndarray:
    """Points (count, 2) on circles of alternating `radii`."""
    angles = start + 2 * math.pi * np.arange(count) / count
    lengths = np.array([radii[i % len(radii)] for i in range(count)])
    return np.stack((lengths * np.cos(angles), lengths * np.sin(angles)), axis=1)


def _cross() -> np.ndarray:
    """Two bars at right angles."""
    a, b = 0.3, 0.95
    quarter = [(-a, -b), (a, -b), (a, -a)]
    turns = [quarter]
    for _ in range(3):
        turns.append([(-y, x) for x, y in turns[-1]])
    return np.array([point for turn in turns for point in turn])


def _crescent() -> np.ndarray:
    """The unit disc without a smaller disc that sticks out to the right."""
    shift, radius = 0.55, 0.8
    x = (1 - radius**2 + shift**2) / (2 * shift)  # where the two circles meet
    outer, inner = math.acos(x), math.acos((x - shift) / radius)
    along = np.linspace(outer, 2 * math.pi - outer, 24)
    back = np.linspace(2 * math.pi - inner, inner, 16)[1:-1]
    return np.concatenate(
        (
            np.stack((np.cos(along), np.sin(along)), axis=1),
            np.stack((shift + radius * np.cos(back), radius * np.sin(back)), axis=1),
        )
    )


OUTLINES: dict[str, Callable[[], np.ndarray]] = {
    "disc": lambda: _ring(32),
    "square": lambda: 0.8 * np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),
    "triangle": lambda: _ring(3),
    "star": lambda: _ring(10, (1.0, 0.45)),
    "cross": _cross,
    "crescent": _crescent,
    "arrow": lambda: np.array(
        [(-1.0, -0.3), (0.1, -0.3), (0.1, -0.8), (1.0, 0.0), (0.1, 0.8), (0.1, 0.3), (-1.0, 0.3)]
    ),
    "bar": lambda: np.array([(-1.0, -0.34), (1.0, -0.34), (1.0, 0.34), (-1.0, 0.34)]),
}


def outline(
    shape: str, radius: float, stretch: float, angle: float, centre: tuple[float, float]
) -> np.ndarray:
    """Polygon (K, 2) float64 in pixels: y scaled by `stretch`, then rotated by `angle` and shifted."""
    points = OUTLINES[shape]() * np.array([1.0, stretch]) * radius
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]]) + np.array(centre)
