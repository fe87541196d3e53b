"""Changes of a picture together with its boxes and masks (core spec section 5)."""

from __future__ import annotations

from .build import build_transforms
from .compose import Compose, Transform
from .geometry import RandomHorizontalFlip, RandomVerticalFlip, Resize, resized_size
from .pixels import ColorJitter, ToNormalizedTensor

__all__ = [
    "ColorJitter",
    "Compose",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Resize",
    "ToNormalizedTensor",
    "Transform",
    "build_transforms",
    "resized_size",
]
