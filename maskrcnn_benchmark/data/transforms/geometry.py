"""Resizing and flipping of images with their targets."""

from __future__ import annotations

import random

from maskrcnn_benchmark.data.transforms.images import PILOrArray, flip_image, image_size, resize_image
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.geometry import AffineMap

Result = tuple[PILOrArray, BoxList | None, AffineMap]


class Resize:
    """Resize an image and its target to the size that a rule gives or samples for it."""

    def __init__(self, rule: SizeRule) -> None:
        """Keep the rule."""
        self.rule = rule

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Resize image and target."""
        old = image_size(image)
        size = self.rule.sample(*old, rng)
        if target is not None and tuple(target.size) != size:
            target = target.resize(size)
        return (
            resize_image(image, size, self.rule.interpolation),
            target,
            AffineMap.of_resize(old[::-1], size[::-1]),
        )


class RandomHorizontalFlip:
    """Flip left and right with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Flip image and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, AffineMap()
        flipped = None if target is None else target.transpose(FLIP_LEFT_RIGHT)
        flip = AffineMap(scale_x=-1.0, shift_x=image_size(image)[0] - 1.0)
        return flip_image(image, FLIP_LEFT_RIGHT), flipped, flip


class RandomVerticalFlip:
    """Flip top and bottom with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Flip image and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, AffineMap()
        flipped = None if target is None else target.transpose(FLIP_TOP_BOTTOM)
        flip = AffineMap(scale_y=-1.0, shift_y=image_size(image)[1] - 1.0)
        return flip_image(image, FLIP_TOP_BOTTOM), flipped, flip
