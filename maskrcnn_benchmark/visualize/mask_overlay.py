"""Masks painted on an image, each inside the window it covers alone."""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.visualize.colors import Color

Window = tuple[slice, slice]


def tint_mask(pixels: np.ndarray, mask: np.ndarray, color: Color, opacity: float) -> None:
    """Tint and outline `mask` in place.

    Args:
        pixels: uint8 (H, W, 3), changed.
        mask: bool (h, w) of the same scene; scaled to (H, W) by nearest neighbour.
        color: of the tint and the outline.
        opacity: of the tint, 0..1; the outline covers.
    """
    window = mask_window(mask)
    if window is None:
        return
    height, width = pixels.shape[:2]
    rows, row_spread = _spread(window[0], mask.shape[0], height)
    columns, column_spread = _spread(window[1], mask.shape[1], width)
    inside = mask[window]
    if (height, width) != mask.shape:
        inside = inside[np.ix_(row_spread, column_spread)]
    part = pixels[rows, columns]
    edge = inside & ~_eroded(inside, max(1, round(min(width, height) / 300)))
    levels = np.arange(256, dtype=np.float32)
    for channel, tone in enumerate(color):
        plane = part[..., channel]
        mixed = np.rint(levels + (np.float32(tone) - levels) * np.float32(opacity)).clip(0, 255)
        np.copyto(plane, mixed.astype(np.uint8)[plane], where=inside)
        np.copyto(plane, np.uint8(tone), where=edge)


def mask_window(mask: np.ndarray) -> Window | None:
    """Rows and columns from the first to the last pixel of `mask` (h, w) bool; None when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    tall = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(mask[tall].any(axis=0))
    return tall, slice(int(columns[0]), int(columns[-1]) + 1)


def _spread(source: slice, old: int, new: int) -> tuple[slice, np.ndarray]:
    """Pixels of an axis of `new` pixels whose nearest of `old` lies in `source`, and which it is there.

    Empty when the axis shrinks so much that no pixel is nearest.
    """
    nearest = ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
    first, last = np.searchsorted(nearest, [source.start, source.stop])
    return slice(int(first), int(last)), nearest[first:last] - source.start


def _eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """`mask` (h, w) bool without its `times` outermost pixels (4-neighbourhood; outside is empty)."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = (
            mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )  # fmt: skip
    return mask
