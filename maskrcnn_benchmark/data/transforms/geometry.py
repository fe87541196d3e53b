"""Resizing and mirroring of PIL images with their targets."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

from ...structures import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList

Result = tuple[Image.Image, BoxList | None, bool]


def resized_size(width: int, height: int, min_size: int, max_size: int) -> tuple[int, int]:
    """(width, height) after scaling the short side to `min_size` while the long side stays below `max_size`.

    parity: the reduced short side is rounded half to even, the long side truncated (core spec section 5).
    """
    short, long = min(width, height), max(width, height)
    target = min_size
    if long / short * target > max_size:
        target = round(max_size * short / long)
    if target == short:
        return width, height
    if target == 0:  # a sliver whose short side would vanish
        new_short, new_long = 1, max_size
    else:
        new_short, new_long = target, int(target * long / short)
    return (new_short, new_long) if width < height else (new_long, new_short)


class Resize:
    """Scale the short side to one of `min_sizes`, drawn for every picture (Pillow bilinear)."""

    def __init__(self, min_sizes: Sequence[int], max_size: int) -> None:
        """Keep the sizes in pixels."""
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size

    def __call__(self, image: Image.Image, target: BoxList | None, rng: random.Random) -> Result:
        """Resize picture and target."""
        size = resized_size(image.width, image.height, rng.choice(self.min_sizes), self.max_size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        if target is not None and tuple(target.size) != size:
            target = target.resize(size)
        return image, target, False


class RandomHorizontalFlip:
    """Mirror left and right with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: Image.Image, target: BoxList | None, rng: random.Random) -> Result:
        """Mirror picture and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, False
        flipped = None if target is None else target.transpose(FLIP_LEFT_RIGHT)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), flipped, True


class RandomVerticalFlip:
    """Mirror top and bottom with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: Image.Image, target: BoxList | None, rng: random.Random) -> Result:
        """Mirror picture and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, False
        flipped = None if target is None else target.transpose(FLIP_TOP_BOTTOM)
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), flipped, False
