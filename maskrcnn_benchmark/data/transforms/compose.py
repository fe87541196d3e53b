"""The interface of all transforms, and their composition."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.geometry import AffineMap


class Transform(Protocol):
    """`t(image, target, rng)` -> (image, target, map from coordinates of the old image to the new).

    `image` is a `PILOrArray` (the last transform makes a tensor (3, H, W) of it); `target` a BoxList or None.
    All randomness comes from `rng`.
    """

    def __call__(self, image: Any, target: BoxList | None, rng: random.Random) -> tuple[Any, Any, AffineMap]:
        """Transform image and target."""


class Compose:
    """Transforms in sequence."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        """Keep the transforms in order."""
        self.transforms = list(transforms)

    def __call__(self, image: Any, target: BoxList | None, rng: random.Random) -> tuple[Any, Any, AffineMap]:
        """Apply all; the third value maps coordinates of the given image to the result."""
        to_result = AffineMap()
        for transform in self.transforms:
            image, target, step = transform(image, target, rng)
            to_result = to_result.then(step)
        return image, target, to_result
