"""Keypoints of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.geometry import FLIP_LEFT_RIGHT, check_flip

# COCO order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left before right.
PERSON_FLIP_ORDER = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)


class Keypoints:
    """Float x, y, visibility (N, K, 3) of N objects in an image of `size` (width, height)."""

    def __init__(
        self, points: Tensor, size: tuple[int, int], flip_order: Sequence[int] = PERSON_FLIP_ORDER
    ) -> None:
        """Keep `points` (N, K, 3); `flip_order[k]` is the point that k becomes in a flipped image.

        Raises ValueError for another shape.
        """
        if points.dim() != 3 or points.shape[2] != 3 or points.shape[1] != len(flip_order):
            raise ValueError(f"keypoints must be (N, {len(flip_order)}, 3), got {tuple(points.shape)}")
        self.points = points if points.is_floating_point() else points.float()
        self.size = size
        self.flip_order = tuple(flip_order)

    def transpose(self, method: int) -> Keypoints:
        """Flip left-right: x' = W - x - 1, left and right points swapped, invisible ones set to 0, 0, 0.

        Raises ValueError for the top-bottom flip, which keypoints do not have.
        """
        check_flip(method)
        if method != FLIP_LEFT_RIGHT:
            raise ValueError("keypoints have no top-bottom flip; set INPUT.VERTICAL_FLIP_PROB_TRAIN to 0")
        flipped = self.points[:, list(self.flip_order)].clone()
        flipped[..., 0] = self.size[0] - flipped[..., 0] - 1
        flipped[flipped[..., 2] == 0] = 0
        return self._like(flipped)

    def resize(self, size: tuple[int, int]) -> Keypoints:
        """Scale the points to an image of `size` (width, height)."""
        factors = self.points.new_tensor((size[0] / self.size[0], size[1] / self.size[1], 1.0))
        return self._like(self.points * factors, size)

    def crop(self, box: Sequence[float]) -> Keypoints:
        """Points relative to the window (x0, y0, x1, y1); points outside are kept."""
        x0, y0, x1, y1 = (float(v) for v in box)
        return self._like(self.points - self.points.new_tensor((x0, y0, 0.0)), (int(x1 - x0), int(y1 - y0)))

    def cut(self, window: tuple[int, int, int, int]) -> Keypoints:
        """Points relative to `window` (left, top, right, bottom); those invisible or outside become 0."""
        x0, y0, x1, y1 = window
        points = self.points - self.points.new_tensor((x0, y0, 0.0))
        size = points.new_tensor((x1 - x0, y1 - y0))
        outside = ((points[..., :2] < 0) | (points[..., :2] > size - 1)).any(dim=2)
        points[outside | (points[..., 2] == 0)] = 0
        return self._like(points, (x1 - x0, y1 - y0))

    def to(self, device: torch.device | str) -> Keypoints:
        """Copy of the points on `device`."""
        return self._like(self.points.to(device))

    @staticmethod
    def cat(parts: Sequence[Keypoints]) -> Keypoints:
        """Concatenate the objects of all `parts` in order."""
        return parts[0]._like(torch.cat([part.points for part in parts]))

    def __getitem__(self, index: Any) -> Keypoints:
        """Select objects by a boolean mask, indices or a slice."""
        return self._like(self.points[index])

    def __len__(self) -> int:
        """Number of objects."""
        return self.points.shape[0]

    def _like(self, points: Tensor, size: tuple[int, int] | None = None) -> Keypoints:
        """Keypoints of `points` (N, K, 3) with this object's flip order and, unless given, its size."""
        return Keypoints(points, size or self.size, self.flip_order)
