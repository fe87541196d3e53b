"""Colour jitter, and conversion of images to normalised tensors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from maskrcnn_benchmark.data.transforms.images import PILOrArray
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.geometry import AffineMap


class ColorJitter:
    """Random brightness, contrast, saturation (factors in 1 +- strength) and hue (shift in -hue..hue)."""

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        """Keep the strengths, 0: off; `hue` is a fraction of the colour circle, at most 0.5 (ValueError)."""
        if not 0 <= hue <= 0.5:
            raise ValueError(f"INPUT.HUE must lie in 0..0.5, got {hue}")
        self.factors = {
            ImageEnhance.Brightness: brightness,
            ImageEnhance.Contrast: contrast,
            ImageEnhance.Color: saturation,
        }
        self.hue = hue

    def __call__(
        self, image: Image.Image, target: BoxList | None, rng: random.Random
    ) -> tuple[Image.Image, BoxList | None, AffineMap]:
        """Change the colours: brightness, contrast, saturation in random order, then hue."""
        steps = [(kind, strength) for kind, strength in self.factors.items() if strength > 0]
        rng.shuffle(steps)
        for kind, strength in steps:
            image = kind(image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
        if self.hue > 0:
            image = _shift_hue(image, rng.uniform(-self.hue, self.hue))
        return image, target, AffineMap()


class ToNormalizedTensor:
    """Convert an image to a float32 tensor (3, H, W) of BGR 0..255 (`to_bgr255`) or RGB 0..1, normalised."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_bgr255: bool) -> None:
        """Keep mean and std, in the order of the channels of the result."""
        self.mean = torch.tensor(mean, dtype=torch.float32)[:, None, None]
        self.std = torch.tensor(std, dtype=torch.float32)[:, None, None]
        self.to_bgr255 = to_bgr255

    def __call__(
        self, image: PILOrArray, target: BoxList | None, rng: random.Random
    ) -> tuple[Tensor, BoxList | None, AffineMap]:
        """Convert the image to (pixels - mean) / std, (3, H, W); the target stays."""
        pixels = np.asarray(image)
        order = (2, 1, 0) if self.to_bgr255 else (0, 1, 2)
        values = torch.empty((3, *pixels.shape[:2]))
        for channel, source in zip(values, order, strict=True):
            np.copyto(channel.numpy(), pixels[..., source])
        if not self.to_bgr255:
            values /= 255
        values -= self.mean
        if not bool((self.std == 1).all()):
            values /= self.std
        return values, target, AffineMap()


def _shift_hue(image: Image.Image, shift: float) -> Image.Image:
    """Shift the hue by a fraction of the colour circle."""
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(shift * 255)) % 256
    return Image.fromarray(hsv, mode="HSV").convert("RGB")
