"""Changes of a picture together with its boxes and masks (core spec section 5)."""

from __future__ import annotations

from .build import build_test_transforms, build_transforms
from .compose import Compose, Transform
from .geometry import RandomHorizontalFlip, RandomVerticalFlip, Resize
from .pixels import ColorJitter, ToNormalizedTensor
from .sizes import SizeRule, resized_size, scaled_size
from .views import TestViews

__all__ = [
    "ColorJitter",
    "Compose",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Resize",
    "SizeRule",
    "TestViews",
    "ToNormalizedTensor",
    "Transform",
    "build_test_transforms",
    "build_transforms",
    "resized_size",
    "scaled_size",
]
