"""Resizing, cropping and flipping of PIL images and pixel arrays."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from maskrcnn_benchmark.data.transforms.sizes import OPENCV
from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT
from maskrcnn_benchmark.structures.mask_instances import Window

PILOrArray = Image.Image | np.ndarray
"""A PIL RGB image or, after colour transforms that leave 0..255, a float32 RGB array (H, W, 3)."""


def image_size(image: PILOrArray) -> tuple[int, int]:
    """Return (width, height)."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def resize_image(image: PILOrArray, size: tuple[int, int], interpolation: str) -> PILOrArray:
    """Resize an image to `size` (width, height); the type stays.

    PILLOW: bilinear with antialiasing. OPENCV: bilinear between the four nearest pixels at any scale (pixel
    centres at halves, edge pixels repeated), bytes rounded; equal to cv2.resize up to one level.
    """
    if image_size(image) == size:
        return image
    if interpolation == OPENCV:
        pixels = _resize_bilinear(np.asarray(image), size)
        return Image.fromarray(pixels) if isinstance(image, Image.Image) else pixels
    if isinstance(image, Image.Image):
        return image.resize(size, Image.Resampling.BILINEAR)
    channels = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(c.resize(size, Image.Resampling.BILINEAR)) for c in channels], axis=2)


def crop_image(pixels: np.ndarray, window: Window, fill: tuple[float, float, float]) -> np.ndarray:
    """Crop float32 `pixels` (H, W, 3) to `window` (x0, y0, x1, y1), with `fill` beyond the image.

    Returns a view where the window lies inside the image, else an array with its planes contiguous in memory.
    """
    (x0, y0, x1, y1), (height, width) = window, pixels.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if (left, top, right, bottom) == window:
        return pixels[y0:y1, x0:x1]
    out = np.empty((3, y1 - y0, x1 - x0), np.float32).transpose(1, 2, 0)
    out[:] = fill
    if left < right and top < bottom:
        out[top - y0 : bottom - y0, left - x0 : right - x0] = pixels[top:bottom, left:right]
    return out


def flip_image(image: PILOrArray, method: int) -> PILOrArray:
    """Flip an image by FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM."""
    if isinstance(image, np.ndarray):
        return (image[:, ::-1] if method == FLIP_LEFT_RIGHT else image[::-1]).copy("K")
    flips = Image.Transpose
    return image.transpose(flips.FLIP_LEFT_RIGHT if method == FLIP_LEFT_RIGHT else flips.FLIP_TOP_BOTTOM)


def _resize_bilinear(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize `pixels` (H, W, 3), bytes or float32, to `size` (width, height) without antialiasing."""
    batch = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]
    resized = functional.interpolate(batch, size=(size[1], size[0]), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()
