"""Masks painted inside their window: the pixels of painting the whole image, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn_benchmark.visualize.mask_overlay import mask_window, overlay_mask

COLOR = (250, 10, 120)


def whole_image(pixels: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """The slow way: every pixel of the image looks up its nearest mask pixel and its neighbours."""
    height, width = pixels.shape[:2]
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    inside = mask[rows][:, columns]
    core = inside
    for _ in range(max(1, round(min(height, width) / 300))):
        around = np.pad(core, 1)
        core = core & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    mixed = pixels.astype(np.float32)
    mixed[inside] += (np.array(COLOR, np.float32) - mixed[inside]) * np.float32(opacity)
    mixed[inside & ~core] = COLOR
    return np.rint(mixed).astype(np.uint8)


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.37, 0.5])
@pytest.mark.parametrize("place", ["inside", "corner", "everything", "scattered", "one pixel"])
def test_equals_painting_the_whole_image(place: str, scale: float) -> None:
    source = np.random.default_rng(0)
    mask = np.zeros((70, 90), bool)
    if place == "inside":
        mask[20:50, 30:61] = True
    elif place == "corner":
        mask[60:, 80:] = True
    elif place == "everything":
        mask[:] = True
    elif place == "scattered":
        mask = source.random((70, 90)) < 0.1
    else:
        mask[33, 44] = True
    size = (round(70 * scale), round(90 * scale))
    pixels = source.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = whole_image(pixels, mask, 0.45)
    overlay_mask(pixels, mask, COLOR, 0.45)
    assert (pixels == expected).all()


def test_empty_masks_and_masks_that_vanish() -> None:
    pixels = np.full((60, 80, 3), 7, np.uint8)
    overlay_mask(pixels, np.zeros((60, 80), bool), COLOR, 0.5)
    lost = np.zeros((600, 800), bool)
    lost[0, 0] = True  # no pixel of the small image is nearest to it
    overlay_mask(pixels, lost, COLOR, 0.5)
    assert (pixels == 7).all()


def test_window_of_a_mask() -> None:
    mask = np.zeros((10, 12), bool)
    assert mask_window(mask) is None
    mask[2, 5] = mask[7, 3] = True
    assert mask_window(mask) == (slice(2, 8), slice(3, 6))
