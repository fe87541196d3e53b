"""Overlay of instance masks on an image, computed inside the bounding box of each mask only."""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.visualize.colors import Color

Window = tuple[slice, slice]
"""Rows and columns of an image."""


def overlay_mask(pixels: np.ndarray, mask: np.ndarray, color: Color, opacity: float) -> None:
    """Blend the colour of `mask` into an image and draw its outline, in place.

    Args:
        pixels: uint8 (H, W, 3), changed.
        mask: bool (h, w) of the same scene; resized to (H, W) by nearest neighbour.
        color: of the mask and of its outline.
        opacity: of the mask, 0..1; the outline is opaque.
    """
    window = mask_window(mask)
    if window is None:
        return
    height, width = pixels.shape[:2]
    rows, source_rows = _nearest(window[0], mask.shape[0], height)
    columns, source_columns = _nearest(window[1], mask.shape[1], width)
    inside = mask[window]
    if (height, width) != mask.shape:
        inside = inside[np.ix_(source_rows, source_columns)]
    part = pixels[rows, columns]
    edge = inside & ~_erode(inside, max(1, round(min(width, height) / 300)))
    levels = np.arange(256, dtype=np.float32)
    for channel, tone in enumerate(color):
        plane = part[..., channel]
        mixed = np.rint(levels + (np.float32(tone) - levels) * np.float32(opacity)).clip(0, 255)
        np.copyto(plane, mixed.astype(np.uint8)[plane], where=inside)
        np.copyto(plane, np.uint8(tone), where=edge)


def mask_window(mask: np.ndarray) -> Window | None:
    """Return the bounding box of `mask` (h, w) bool as slices; None if the mask is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    tall = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(mask[tall].any(axis=0))
    return tall, slice(int(columns[0]), int(columns[-1]) + 1)


def _nearest(source: slice, old: int, new: int) -> tuple[slice, np.ndarray]:
    """Nearest-neighbour resize of one axis from `old` to `new` pixels, restricted to a window.

    Returns:
        The new pixels whose nearest old one lies in `source`, and that old pixel (K,) relative to the window;
        both are empty if the axis shrinks so much that there is none.
    """
    nearest = ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
    first, last = np.searchsorted(nearest, [source.start, source.stop])
    return slice(int(first), int(last)), nearest[first:last] - source.start


def _erode(mask: np.ndarray, iterations: int) -> np.ndarray:
    """Erode `mask` (h, w) bool `iterations` times (4-neighbourhood; pixels outside are False)."""
    for _ in range(iterations):
        padded = np.pad(mask, 1)
        mask = (
            mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )  # fmt: skip
    return mask
