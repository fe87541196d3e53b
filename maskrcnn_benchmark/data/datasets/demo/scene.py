"""One demo image: objects that hide each other little, later ones in front, and their visible masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.data.datasets.demo import paint
from maskrcnn_benchmark.data.datasets.demo.categories import DemoCategory
from maskrcnn_benchmark.data.datasets.demo.contours import signed_area, trace
from maskrcnn_benchmark.data.datasets.demo.shapes import outline
from maskrcnn_benchmark.structures.rle import decode_rle, rle_from_polygons

MIN_VISIBLE = 0.85  # min fraction of an object that later objects do not hide
TRIES = 60
RADIUS = (0.09, 0.23)  # of the image's side


@dataclass
class PlacedObject:
    """An object: its polygon (K, 2) in pixels, its bitmap (H, W), and the part that no later one hides."""

    category: DemoCategory
    polygon: np.ndarray
    full: np.ndarray
    visible: np.ndarray

    def annotation(self) -> dict[str, Any]:
        """Segmentation (polygons of the visible part), area in pixels, and bbox x, y, width, height."""
        size = self.visible.shape[0]
        if np.array_equal(self.full, self.visible):
            polygons = [self.polygon]
        else:
            polygons = [loop for loop in trace(self.visible) if signed_area(loop) > 0]
        flat = [[round(float(v), 2) for v in polygon.reshape(-1)] for polygon in polygons]
        corners = np.concatenate([np.array(polygon).reshape(-1, 2) for polygon in flat])
        low, high = corners.min(0), corners.max(0)
        rle = rle_from_polygons([torch.tensor(p, dtype=torch.float64) for p in flat], size, size)
        return {
            "segmentation": flat,
            "area": float(decode_rle(rle).sum()),
            "bbox": [round(float(v), 2) for v in (*low, *(high - low))],
        }


def draw_scene(
    categories: list[DemoCategory], size: int, rng: np.random.Generator
) -> tuple[Image.Image, list[PlacedObject]]:
    """Draw an image of `size` x `size` pixels with one object per entry of `categories`, in that order.

    An object that fits nowhere is left out.
    """
    canvas = paint.background(size, rng)
    placed: list[PlacedObject] = []
    for category in categories:
        fitted = _fit(category, placed, size, rng)
        if fitted is None:
            continue
        new, radius, angle, centre = fitted
        for other in placed:
            other.visible &= ~new.full
        colours = paint.surface(category.texture, category.hue, radius, angle, centre, size, rng)
        alpha = paint.coverage(new.polygon, size)[..., None]
        canvas = canvas * (1 - alpha) + colours * alpha
        placed.append(new)
    return paint.finish(canvas, rng), placed


def _fit(
    category: DemoCategory, placed: list[PlacedObject], size: int, rng: np.random.Generator
) -> tuple[PlacedObject, float, float, tuple[float, float]] | None:
    """Sample radius, angle and centre until the earlier objects stay visible; None after TRIES."""
    largest = RADIUS[1]
    for _ in range(TRIES):
        radius = size * rng.uniform(RADIUS[0], largest)
        largest = max(RADIUS[0] * 1.2, largest * 0.97)
        angle, stretch = rng.uniform(0, 2 * math.pi), rng.uniform(0.85, 1.0)
        centre = (rng.uniform(radius, size - radius), rng.uniform(radius, size - radius))
        polygon = np.clip(outline(category.shape, radius, stretch, angle, centre), 0, size)
        full = paint.coverage(polygon, size) >= 0.5
        if all(_stays_visible(other, full) for other in placed):
            return PlacedObject(category, polygon, full, full.copy()), radius, angle, centre
    return None


def _stays_visible(other: PlacedObject, cover: np.ndarray) -> bool:
    """Whether enough of `other` is left under `cover`, in one piece and without a hole (a plain polygon)."""
    left = other.visible & ~cover
    if np.array_equal(left, other.visible):
        return True
    return left.sum() >= MIN_VISIBLE * other.full.sum() and len(trace(left)) == 1
