"""Data augmentation of the single-shot detector, SSD (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.data.transforms.geometry import Result
from maskrcnn_benchmark.data.transforms.images import PILOrArray, crop_image, image_size
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.geometry import AffineMap
from maskrcnn_benchmark.structures.mask_instances import Window

# parity: constants of the published recipe without a config key.
CHANCE = 0.5
TRIES = 50
MAX_ASPECT = 2.0
"""Max ratio of the sides of a crop."""

Range = tuple[float, float]


class PhotometricDistortion:
    """Random brightness, contrast, saturation, hue and order of the channels, each with probability CHANCE.

    The result is a float32 array whose values may leave 0..255 (parity).
    """

    def __init__(self, brightness: float, contrast: Range, saturation: Range, hue: float) -> None:
        """Keep the max change of brightness (of 255) and hue (degrees), and the ranges of the factors."""
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Change the colours; the target stays."""
        # contiguous planes: three times as fast as interleaved channels
        pixels = np.array(np.asarray(image).transpose(2, 0, 1), dtype=np.float32, order="C")
        if rng.random() < CHANCE:
            pixels += rng.uniform(-self.brightness, self.brightness)
        contrast = rng.uniform(*self.contrast) if rng.random() < CHANCE else 1.0
        contrast_first = rng.random() < CHANCE
        if contrast_first:
            pixels *= contrast
        saturation = rng.uniform(*self.saturation) if rng.random() < CHANCE else 1.0
        hue = rng.uniform(-self.hue, self.hue) if rng.random() < CHANCE else 0.0
        pixels = change_chroma(pixels, saturation, hue)
        if not contrast_first:
            pixels *= contrast
        if rng.random() < CHANCE:
            pixels = pixels[rng.sample(range(3), 3)]
        return pixels.transpose(1, 2, 0), target, AffineMap()


def change_chroma(pixels: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """Scale the HSV saturation of RGB planes (3, H, W) float32 and rotate their hue by degrees.

    The value (the largest channel) stays, so saturation scales the distance of the other channels to it.
    """
    if saturation == 1 and hue == 0:
        return pixels
    value = np.maximum(np.maximum(pixels[0], pixels[1]), pixels[2])
    if hue == 0:
        return value - (value - pixels) * np.float32(saturation)
    chroma = value - np.minimum(np.minimum(pixels[0], pixels[1]), pixels[2])
    sextant = _sextants(pixels, value, chroma) + np.float32(hue / 60)
    chroma *= np.float32(saturation)
    out = np.empty_like(pixels)
    for plane, offset in zip(out, (5, 3, 1), strict=True):  # lag of each channel in sextants
        phase = sextant + np.float32(offset)
        phase -= 6 * np.floor(phase * np.float32(1 / 6))
        np.subtract(value, chroma * np.minimum(phase, 4 - phase).clip(0, 1), out=plane)
    return out


def _sextants(pixels: np.ndarray, value: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Hue in sixths of the circle, (H, W) in -1..5, red at 0; arbitrary where `chroma` is 0."""
    red, green, blue = pixels
    near_red = value == red
    near_green = (value == green) & ~near_red
    rise = np.where(near_red, green - blue, np.where(near_green, blue - red, red - green))
    start = np.where(near_red, np.float32(0), np.where(near_green, np.float32(2), np.float32(4)))
    return start + rise / np.where(chroma > 0, chroma, np.float32(1))


class ExpandAndCrop:
    """Random expansion of the canvas with the mean colour (zoom out), then a random crop.

    The canvas is expanded with probability CHANCE. For the crop a min IoU is sampled, or no crop. A window
    fits when its IoU with every box is at least the min IoU and the centre of one box lies in it; objects
    whose centre lies outside are dropped. After TRIES windows that do not fit another min IoU is sampled. So
    no image loses all its objects.
    """

    def __init__(
        self, fill: Sequence[float], expand: Range, min_ious: Sequence[float], min_side: float
    ) -> None:
        """Keep the RGB colour (0..255) beyond the image and the parameters.

        expand: range of the ratio of canvas and image sides. min_ious: to sample from. min_side: min ratio of
        crop and canvas sides.
        """
        red, green, blue = fill
        self.fill = (float(red), float(green), float(blue))
        self.expand = expand
        self.min_ious = tuple(min_ious)
        self.min_side = min_side

    def __call__(self, image: PILOrArray, target: BoxList | None, rng: random.Random) -> Result:
        """Expand and crop image and target; the canvas itself is never filled."""
        boxes = np.zeros((0, 4)) if target is None else target.xyxy().double().numpy()
        canvas = self._sample_canvas(image_size(image), rng)
        window, kept = self._sample_crop(canvas, boxes, rng)
        if target is not None:
            target = target[np.flatnonzero(kept).tolist()].cut(window)
        shift = AffineMap(shift_x=-float(window[0]), shift_y=-float(window[1]))
        return crop_image(np.asarray(image, dtype=np.float32), window, self.fill), target, shift

    def _sample_canvas(self, size: tuple[int, int], rng: random.Random) -> Window:
        """Sample a canvas around an image of `size` (width, height), xyxy in coordinates of the image."""
        width, height = size
        if rng.random() >= CHANCE:
            return 0, 0, width, height
        ratio = rng.uniform(*self.expand)
        left, top = int(rng.uniform(0, width * (ratio - 1))), int(rng.uniform(0, height * (ratio - 1)))
        return -left, -top, int(width * ratio) - left, int(height * ratio) - top

    def _sample_crop(
        self, canvas: Window, boxes: np.ndarray, rng: random.Random
    ) -> tuple[Window, np.ndarray]:
        """Sample a window in `canvas` (xyxy), and which of the `boxes` (N, 4) xyxy stay, bool (N,)."""
        while True:
            min_iou = rng.choice((None, *self.min_ious, 0.0))
            if min_iou is None:
                return canvas, np.ones(len(boxes), bool)
            windows = self._sample_windows(canvas, rng)
            windows = windows[(window_ious(windows, boxes) >= min_iou).all(axis=1)]
            kept = centres_inside(windows, boxes)
            fitting = np.flatnonzero(kept.any(axis=1) if len(boxes) else np.ones(len(windows), bool))
            if len(fitting):
                x0, y0, x1, y1 = windows[fitting[0]].tolist()
                return (x0, y0, x1, y1), kept[fitting[0]]

    def _sample_windows(self, canvas: Window, rng: random.Random) -> np.ndarray:
        """Sample TRIES windows in `canvas` and return those of valid aspect, int64 (W, 4) xyxy."""
        low, extent = np.array(canvas[:2]), np.array(canvas[2:]) - canvas[:2]
        samples = np.array([rng.random() for _ in range(4 * TRIES)]).reshape(TRIES, 4)
        sides = extent * (self.min_side + (1 - self.min_side) * samples[:, :2])
        starts = (extent - sides) * samples[:, 2:]
        windows = np.concatenate([low + starts.astype(int), low + (starts + sides).astype(int)], axis=1)
        aspect = sides[:, 1] / sides[:, 0]
        fits = (aspect >= 1 / MAX_ASPECT) & (aspect <= MAX_ASPECT)
        return windows[fits & (windows[:, :2] < windows[:, 2:]).all(axis=1)]


def window_ious(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU (W, N) of windows (W, 4) xyxy and boxes (N, 4) xyxy with inclusive far corners."""
    low, high, ends = windows[:, None, :2], windows[:, None, 2:], boxes[:, 2:] + 1
    intersection = (np.minimum(ends, high) - np.maximum(boxes[:, :2], low)).clip(0).prod(axis=2)
    return intersection / ((ends - boxes[:, :2]).prod(axis=1) + (high - low).prod(axis=2) - intersection)


def centres_inside(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether each box has its centre and more than a line of pixels in each window, bool (W, N).

    windows: (W, 4) xyxy. boxes: (N, 4) xyxy in pixels.
    """
    low, high = windows[:, None, :2], windows[:, None, 2:]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > low) & (centres < high)).all(axis=2)
    left = np.minimum(boxes[:, 2:], high - 1) > np.maximum(boxes[:, :2], low)
    return inside & left.all(axis=2)
