"""Flips, and how an image lies in the network input: sizes, padding, the map between both coordinates.

Coordinates are those of BoxList: x to the right, y down, pixel centres at whole numbers; a left-right flip
maps x to width - 1 - x, a resize multiplies by the ratio of the sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]
"""(height, width)."""

FLIP_LEFT_RIGHT = 0
FLIP_TOP_BOTTOM = 1


def check_flip(method: int) -> None:
    """Raise ValueError unless `method` is FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM."""
    if method not in (FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM):
        raise ValueError(f"flip method must be FLIP_LEFT_RIGHT (0) or FLIP_TOP_BOTTOM (1), got {method!r}")


@dataclass(frozen=True)
class AffineMap:
    """Axis-aligned affine map: x -> scale_x * x + shift_x, y -> scale_y * y + shift_y (scales not 0)."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    @classmethod
    def of_resize(cls, old: Size, new: Size, *, flipped: bool = False) -> AffineMap:
        """Map of a resize from `old` to `new`, with `flipped` followed by a left-right flip."""
        resize = cls(new[1] / old[1], new[0] / old[0])
        return resize.then(cls(scale_x=-1.0, shift_x=new[1] - 1.0)) if flipped else resize

    def then(self, other: AffineMap) -> AffineMap:
        """Map that applies this one first and `other` after it."""
        return AffineMap(
            self.scale_x * other.scale_x,
            self.scale_y * other.scale_y,
            self.shift_x * other.scale_x + other.shift_x,
            self.shift_y * other.scale_y + other.shift_y,
        )

    def inverse(self) -> AffineMap:
        """Map back."""
        x, y = 1 / self.scale_x, 1 / self.scale_y
        return AffineMap(x, y, -self.shift_x * x, -self.shift_y * y)

    def points(self, points: Tensor) -> Tensor:
        """Map points (..., 2) x, y; same shape and dtype."""
        scale = points.new_tensor((self.scale_x, self.scale_y))
        return points * scale + points.new_tensor((self.shift_x, self.shift_y))

    def boxes(self, boxes: Tensor) -> Tensor:
        """Map boxes (..., 4) xyxy; a flip swaps their sides, so that x1 <= x2 stays true."""
        first, second = self.points(boxes[..., :2]), self.points(boxes[..., 2:])
        return torch.cat((torch.minimum(first, second), torch.maximum(first, second)), dim=-1)


@dataclass(frozen=True)
class ImageGeometry:
    """One image of a batch: sizes before and after padding, size of its file, and the map between them.

    `to_input` maps coordinates of the file to the network input; padding lies right and below and moves
    nothing.
    """

    input_size: Size
    padded_size: Size
    original_size: Size
    to_input: AffineMap

    @property
    def to_original(self) -> AffineMap:
        """Map from the network input to the file."""
        return self.to_input.inverse()

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per pixel of the file: (vertical, horizontal), both positive."""
        return abs(self.to_input.scale_y), abs(self.to_input.scale_x)

    @property
    def flipped(self) -> bool:
        """Whether left and right are swapped."""
        return self.to_input.scale_x < 0
