"""Resizing and flipping of images with their targets."""

from __future__ import annotations

import random

from maskrcnn_benchmark.data.transforms.images import PILOrArray, flip_image, image_size, resize_image
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList

Result = tuple[PILOrArray, BoxList | None, bool]


class Resize:
    """Resize an image and its target to the size that a rule gives or samples for it."""

    def __init__(self, rule: SizeRule) -> None:
        """Keep the rule."""
        self.rule = rule

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Resize image and target."""
        size = self.rule.sample(*image_size(image), rng)
        if target is not None and tuple(target.size) != size:
            target = target.resize(size)
        return resize_image(image, size, self.rule.interpolation), target, False


class RandomHorizontalFlip:
    """Flip left and right with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Flip image and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, False
        flipped = None if target is None else target.transpose(FLIP_LEFT_RIGHT)
        return flip_image(image, FLIP_LEFT_RIGHT), flipped, True


class RandomVerticalFlip:
    """Flip top and bottom with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Flip image and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, False
        flipped = None if target is None else target.transpose(FLIP_TOP_BOTTOM)
        return flip_image(image, FLIP_TOP_BOTTOM), flipped, False
