"""Transforms of images together with their boxes, masks and keypoints."""

from __future__ import annotations

from maskrcnn_benchmark.data.transforms.build import build_test_transforms, build_transforms
from maskrcnn_benchmark.data.transforms.compose import Compose, Transform
from maskrcnn_benchmark.data.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip, Resize
from maskrcnn_benchmark.data.transforms.pixels import ColorJitter, ToNormalizedTensor
from maskrcnn_benchmark.data.transforms.sizes import SizeRule, resized_size, scaled_size
from maskrcnn_benchmark.data.transforms.views import TestViews

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
