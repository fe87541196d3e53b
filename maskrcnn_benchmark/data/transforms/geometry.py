"""Resizing and mirroring of images with their targets."""

from __future__ import annotations

import random

from maskrcnn_benchmark.data.transforms.images import PILOrArray, image_size, mirror_image, resize_image
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList

Result = tuple[PILOrArray, BoxList | None, bool]


class Resize:
    """Bring an image and its target to the size that a rule draws for it."""

    def __init__(self, rule: SizeRule) -> None:
        """Keep the rule."""
        self.rule = rule

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Resize image and target."""
        size = self.rule.draw(*image_size(image), rng)
        if target is not None and tuple(target.size) != size:
            target = target.resize(size)
        return resize_image(image, size, self.rule.interpolation), target, False


class RandomHorizontalFlip:
    """Mirror left and right with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Mirror image and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, False
        flipped = None if target is None else target.transpose(FLIP_LEFT_RIGHT)
        return mirror_image(image, FLIP_LEFT_RIGHT), flipped, True


class RandomVerticalFlip:
    """Mirror top and bottom with probability `prob`."""

    def __init__(self, prob: float) -> None:
        """Keep the probability."""
        self.prob = prob

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Mirror image and target, or leave both."""
        if rng.random() >= self.prob:
            return image, target, False
        flipped = None if target is None else target.transpose(FLIP_TOP_BOTTOM)
        return mirror_image(image, FLIP_TOP_BOTTOM), flipped, False
