"""The form of a transform, and several in a row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

from maskrcnn_benchmark.structures import BoxList


class Transform(Protocol):
    """`t(image, target, rng)` -> (image, target, whether it mirrored left and right).

    `image` is an Image (the last transform makes a (3,h,w) tensor of it); `target` a BoxList or None. All
    randomness comes from `rng`.
    """

    def __call__(self, image: Any, target: BoxList | None, rng: random.Random) -> tuple[Any, Any, bool]:
        """Apply the change."""


class Compose:
    """Transforms one after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        """Keep the transforms in order."""
        self.transforms = list(transforms)

    def __call__(self, image: Any, target: BoxList | None, rng: random.Random) -> tuple[Any, Any, bool]:
        """Apply all; the third value says whether the result is mirrored left-right."""
        mirrored = False
        for transform in self.transforms:
            image, target, flipped = transform(image, target, rng)
            mirrored ^= flipped
        return image, target, mirrored
