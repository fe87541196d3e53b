"""Images on their way through the transforms: how their pixels are resized and mirrored."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from maskrcnn_benchmark.data.transforms.sizes import OPENCV
from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT
from maskrcnn_benchmark.structures.mask_instances import Window

PILOrArray = Image.Image | np.ndarray
"""A PIL RGB image or, once colours may leave the bytes, a float32 (h,w,3) RGB array around 0 to 255."""


def image_size(image: PILOrArray) -> tuple[int, int]:
    """(width, height)."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def resize_image(image: PILOrArray, size: tuple[int, int], interpolation: str) -> PILOrArray:
    """The image at `size` (width, height), in the form that it came in.

    PILLOW: bilinear, averaging over the area of a pixel when sides shrink. OPENCV: between the four nearest
    pixels whatever the scale (pixel centres at halves, the outermost pixel continued), bytes rounded; equal
    to cv2.resize up to one level.
    """
    if image_size(image) == size:
        return image
    if interpolation == OPENCV:
        pixels = _nearest_four(np.asarray(image), size)
        return Image.fromarray(pixels) if isinstance(image, Image.Image) else pixels
    if isinstance(image, Image.Image):
        return image.resize(size, Image.Resampling.BILINEAR)
    channels = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(c.resize(size, Image.Resampling.BILINEAR)) for c in channels], axis=2)


def cut_image(pixels: np.ndarray, window: Window, fill: tuple[float, float, float]) -> np.ndarray:
    """The part of float32 (h,w,3) `pixels` in `window`, `fill` beyond the image; a view where it can be.

    What is no view lies plane by plane in memory.
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


def mirror_image(image: PILOrArray, method: int) -> PILOrArray:
    """The image mirrored by FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM."""
    if isinstance(image, np.ndarray):
        return (image[:, ::-1] if method == FLIP_LEFT_RIGHT else image[::-1]).copy("K")
    flips = Image.Transpose
    return image.transpose(flips.FLIP_LEFT_RIGHT if method == FLIP_LEFT_RIGHT else flips.FLIP_TOP_BOTTOM)


def _nearest_four(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h,w,3) pixels, bytes or float32, at `size` (width, height)."""
    batch = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]
    resized = functional.interpolate(batch, size=(size[1], size[0]), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()
