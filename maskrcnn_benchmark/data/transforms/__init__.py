"""Changes of a picture together with its boxes and masks (core spec section 5)."""

from __future__ import annotations

from .build import build_test_transforms, build_transforms
from .compose import Compose, Transform
from .geometry import RandomHorizontalFlip, RandomVerticalFlip, Resize, resized_size
from .pixels import ColorJitter, ToNormalizedTensor
from .views import TestViews

__all__ = [
    "ColorJitter",
    "Compose",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Resize",
    "TestViews",
    "ToNormalizedTensor",
    "Transform",
    "build_test_transforms",
    "build_transforms",
    "resized_size",
]
