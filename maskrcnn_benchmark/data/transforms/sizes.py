"""Sizes of images in the input of the network."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PILLOW, OPENCV = "pillow", "opencv"
"""INPUT.INTERPOLATION: how pixels are interpolated and how sizes are rounded."""


def resized_size(width: int, height: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Scale the short side to `min_size`, or less so that the long side stays below `max_size`.

    Returns (width, height). parity: the reduced short side is rounded half to even, the long side truncated.
    """
    short, long = min(width, height), max(width, height)
    target = min_size
    if long / short * target > max_size:
        target = round(max_size * short / long)
    if target == short:
        return width, height
    if target == 0:  # a short side that would vanish
        new_short, new_long = 1, max_size
    else:
        new_short, new_long = target, int(target * long / short)
    return (new_short, new_long) if width < height else (new_long, new_short)


def scaled_size(width: int, height: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Scale as `resized_size`, rounded as mmdetection does: one factor, sides rounded half up (parity)."""
    short, long = min(width, height), max(width, height)
    factor = min(max_size / long, min_size / short)
    return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))


@dataclass(frozen=True)
class SizeRule:
    """Size of images in the network's input.

    Args:
        short_sides: lengths of the short side in pixels, one of which is sampled for every image.
        max_size: max length of the long side in pixels.
        fixed: (width, height) that every image gets instead, whatever its aspect ratio.
        interpolation: PILLOW or OPENCV.
    """

    short_sides: Sequence[int]
    max_size: int
    fixed: tuple[int, int] | None = None
    interpolation: str = PILLOW

    @classmethod
    def from_cfg(cls, cfg: Any, train: bool) -> SizeRule:
        """Build the rule of `cfg.INPUT` for training or testing."""
        node = cfg.INPUT
        if train:
            low, high = node.MIN_SIZE_RANGE_TRAIN
            sides: Sequence[int] = range(low, high + 1) if low > 0 else tuple(node.MIN_SIZE_TRAIN)
            longest, fixed = node.MAX_SIZE_TRAIN, tuple(node.FIXED_SIZE_TRAIN)
        else:
            sides, longest, fixed = (node.MIN_SIZE_TEST,), node.MAX_SIZE_TEST, tuple(node.FIXED_SIZE_TEST)
        return cls(sides, longest, fixed if all(fixed) else None, node.INTERPOLATION)

    def sample(self, width: int, height: int, rng: random.Random) -> tuple[int, int]:
        """Sample the (width, height) of an image of `width` and `height`."""
        if self.fixed is not None:
            return self.fixed
        return self.size(width, height, rng.choice(self.short_sides))

    def size(self, width: int, height: int, short_side: int) -> tuple[int, int]:
        """The (width, height) of an image for one of `short_sides`."""
        if self.fixed is not None:
            return self.fixed
        rule = scaled_size if self.interpolation == OPENCV else resized_size
        return rule(width, height, short_side, self.max_size)

    def largest(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) of an image for the longest of `short_sides`."""
        return self.size(width, height, max(self.short_sides))
