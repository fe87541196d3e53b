"""The interface of all transforms, and their composition."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

from maskrcnn_benchmark.structures import BoxList


class Transform(Protocol):
    """`t(image, target, rng)` -> (image, target, whether it flipped left and right).

    `image` is a `PILOrArray` (the last transform makes a tensor (3, H, W) of it); `target` a BoxList or None.
    All randomness comes from `rng`.
    """

    def __call__(self, image: Any, target: BoxList | None, rng: random.Random) -> tuple[Any, Any, bool]:
        """Transform image and target."""


class Compose:
    """Transforms in sequence."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        """Keep the transforms in order."""
        self.transforms = list(transforms)

    def __call__(self, image: Any, target: BoxList | None, rng: random.Random) -> tuple[Any, Any, bool]:
        """Apply all; the third value says whether the result is flipped left-right."""
        flipped = False
        for transform in self.transforms:
            image, target, flips = transform(image, target, rng)
            flipped ^= flips
        return image, target, flipped
