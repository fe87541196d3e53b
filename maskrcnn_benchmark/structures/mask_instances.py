"""Mask of one object, as polygons, run lengths or a bitmap; SegmentationMask holds one per object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional

from maskrcnn_benchmark.structures.geometry import FLIP_LEFT_RIGHT
from maskrcnn_benchmark.structures.polygons import MIN_POLYGON_VALUES, clip_polygon, read_polygons
from maskrcnn_benchmark.structures.rle import decode_rle, read_rle, rle_from_polygons

WidthHeight = tuple[float, float]
"""(width, height), which crops of polygons may leave fractional."""
Window = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels, the last two exclusive; it may extend beyond the image."""


class PolygonInstance:
    """Mask of one object as flat float32 polygons in an image of `size` (width, height)."""

    def __init__(self, polygons: Sequence[Tensor], size: WidthHeight) -> None:
        """Keep the tensors (2 * points,), each of at least three points."""
        self.polygons = list(polygons)
        self.size = size

    def transpose(self, method: int) -> PolygonInstance:
        """Flip: coordinate' = side - coordinate - 1 along the flipped axis."""
        axis = 0 if method == FLIP_LEFT_RIGHT else 1
        out = []
        for polygon in self.polygons:
            flipped = polygon.clone()
            flipped[axis::2] = self.size[axis] - polygon[axis::2] - 1
            out.append(flipped)
        return PolygonInstance(out, self.size)

    def crop(self, box: Sequence[float]) -> PolygonInstance:
        """Shift to the window `box`; the polygons are not cut.

        parity: only the window's origin is clamped into the image, its sides (at least 1) are
        those of `box`, as for the published mask targets of boxes that leave the image.
        """
        x0, y0, _, _ = clamp_window(box, self.size)
        sides = (max(float(box[2] - box[0]), 1.0), max(float(box[3] - box[1]), 1.0))
        out = []
        for polygon in self.polygons:
            shifted = polygon.clone()
            shifted[0::2] -= x0
            shifted[1::2] -= y0
            out.append(shifted)
        return PolygonInstance(out, sides)

    def cut(self, window: Window) -> PolygonInstance:
        """Cut the polygons at `window`, relative to it; those outside it are dropped."""
        x0, y0, x1, y1 = window
        out = []
        for polygon in self.polygons:
            shifted = polygon.clone()
            shifted[0::2] -= x0
            shifted[1::2] -= y0
            out.append(clip_polygon(shifted, x1 - x0, y1 - y0))
        return PolygonInstance([p for p in out if len(p) >= MIN_POLYGON_VALUES], (x1 - x0, y1 - y0))

    def resize(self, size: tuple[int, int], full_cover: bool = False) -> PolygonInstance:
        """Scale to `size` (width, height); `full_cover` has no meaning for polygons."""
        ratios = (size[0] / self.size[0], size[1] / self.size[1])
        out = []
        for polygon in self.polygons:
            scaled = polygon.clone()
            scaled[0::2] *= ratios[0]
            scaled[1::2] *= ratios[1]
            out.append(scaled)
        return PolygonInstance(out, size)

    def to_rle(self) -> dict[str, Any]:
        """Union of the polygons by the COCO rasterising rule, as a compressed run-length dict."""
        return rle_from_polygons(self.polygons, int(self.size[1]), int(self.size[0]))

    def to_bitmap(self) -> Tensor:
        """Bitmap (h, w), bool."""
        return decode_rle(self.to_rle())


class BitmapInstance:
    """Mask of one object as a bool tensor (h, w)."""

    def __init__(self, bitmap: Tensor) -> None:
        """Keep a bool tensor (h, w)."""
        self.bitmap = bitmap
        self.size = (bitmap.shape[1], bitmap.shape[0])

    def transpose(self, method: int) -> BitmapInstance:
        """Flip the bitmap."""
        return BitmapInstance(self.bitmap.flip(1 if method == FLIP_LEFT_RIGHT else 0))

    def crop(self, box: Sequence[float]) -> BitmapInstance:
        """Crop to the window `box`, rounded half to even (parity) and clamped into the image."""
        x0, y0, x1, y1 = (int(v) for v in clamp_window([round(float(v)) for v in box], self.size))
        return BitmapInstance(self.bitmap[y0:y1, x0:x1])

    def cut(self, window: Window) -> BitmapInstance:
        """Cut out the pixels of `window`; those outside the image are False."""
        x0, y0, x1, y1 = window
        width, height = self.size
        out = self.bitmap.new_zeros((y1 - y0, x1 - x0))
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if left < right and top < bottom:
            out[top - y0 : bottom - y0, left - x0 : right - x0] = self.bitmap[top:bottom, left:right]
        return BitmapInstance(out)

    def resize(self, size: tuple[int, int], full_cover: bool = False) -> BitmapInstance:
        """Resize bilinearly (align_corners False); inside from a value of 0.5, of 1 with `full_cover`."""
        values = functional.interpolate(
            self.bitmap[None, None].float(),
            size=(int(size[1]), int(size[0])),
            mode="bilinear",
            align_corners=False,
        )[0, 0]
        return BitmapInstance(values >= (1.0 if full_cover else 0.5))

    def to_rle(self) -> dict[str, Any]:
        """Compressed run-length dict."""
        return coco_mask.encode(np.asfortranarray(self.bitmap.numpy().astype(np.uint8)))

    def to_bitmap(self) -> Tensor:
        """Bitmap (h, w), bool."""
        return self.bitmap


class RleInstance:
    """Mask of one object as a compressed run-length dict; geometry turns it into a bitmap."""

    def __init__(self, rle: dict[str, Any]) -> None:
        """Keep {"size": [h, w], "counts": bytes}."""
        self.rle = rle
        self.size = (int(rle["size"][1]), int(rle["size"][0]))

    def transpose(self, method: int) -> BitmapInstance:
        """Flip it as a bitmap."""
        return BitmapInstance(self.to_bitmap()).transpose(method)

    def crop(self, box: Sequence[float]) -> BitmapInstance:
        """Crop it as a bitmap to the rounded window `box`."""
        return BitmapInstance(self.to_bitmap()).crop(box)

    def cut(self, window: Window) -> BitmapInstance:
        """Cut it as a bitmap at `window`."""
        return BitmapInstance(self.to_bitmap()).cut(window)

    def resize(self, size: tuple[int, int], full_cover: bool = False) -> RleInstance | BitmapInstance:
        """Resize it as a bitmap; itself when the size stays."""
        if (int(size[0]), int(size[1])) == self.size:
            return self
        return BitmapInstance(self.to_bitmap()).resize(size, full_cover)

    def to_rle(self) -> dict[str, Any]:
        """Stored run-length dict."""
        return self.rle

    def to_bitmap(self) -> Tensor:
        """Bitmap (h, w), bool."""
        return decode_rle(self.rle)


MaskInstance = PolygonInstance | BitmapInstance | RleInstance


def instance_from(entry: Any, size: WidthHeight) -> MaskInstance:
    """Build the mask of one annotation entry: list of polygons, run-length dict or 2-d bitmap.

    Polygons are read by `read_polygons`, run lengths by `read_rle`. Raises ValueError for what these do not
    accept, for a bitmap that is not of `size`, and for entries of other types.
    """
    whole = (int(size[0]), int(size[1]))
    if isinstance(entry, list | tuple):
        return PolygonInstance(read_polygons(entry, size), size)
    if isinstance(entry, dict):
        return RleInstance(read_rle(entry, whole))
    if isinstance(entry, np.ndarray | Tensor) and entry.ndim == 2:
        instance = BitmapInstance(torch.as_tensor(entry).cpu() != 0)
        if instance.size != whole:
            raise ValueError(f"mask of size (w,h)={instance.size} in an image of size {whole}")
        return instance
    raise ValueError(
        f"a mask is a list of polygons, run lengths or an array (h, w), got {type(entry).__name__}"
    )


def clamp_window(box: Sequence[float], size: WidthHeight) -> tuple[float, float, float, float]:
    """Clamp (x0, y0, x1, y1) into an image of `size`: x0 in 0..W-1, x1 in 0..W, at least x0 + 1; y alike."""
    x0, y0, x1, y1 = box
    x0, y0 = min(max(x0, 0), size[0] - 1), min(max(y0, 0), size[1] - 1)
    x1, y1 = min(max(x1, 0), size[0]), min(max(y1, 0), size[1])
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)
