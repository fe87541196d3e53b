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

WidthHeight = tuple[float, float]
"""(width, height), which crops of polygons may leave fractional."""
Window = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels, the last two exclusive; it may extend beyond the image."""

MIN_POLYGON_VALUES = 6  # three points
MAX_COORDINATE = 2**20
"""Pixels; time and memory of rasterising grow with the length of an outline."""


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
        width, height = int(self.size[0]), int(self.size[1])
        if not self.polygons:
            return _encode(np.zeros((height, width), dtype=np.uint8))
        flat = [polygon.to(torch.float64).tolist() for polygon in self.polygons]
        return coco_mask.merge(coco_mask.frPyObjects(flat, height, width))

    def to_bitmap(self) -> Tensor:
        """Bitmap (h, w), bool."""
        return torch.from_numpy(coco_mask.decode(self.to_rle())).bool()


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
        return _encode(self.bitmap.numpy().astype(np.uint8))

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
        return torch.from_numpy(coco_mask.decode(self.rle)).bool()


MaskInstance = PolygonInstance | BitmapInstance | RleInstance


def instance_from(entry: Any, size: WidthHeight) -> MaskInstance:
    """Build the mask of one annotation entry: list of polygons, run-length dict or 2-d bitmap.

    Polygons of fewer than three points are left out. Raises ValueError when coordinates are no finite
    numbers or not x, y in turn, when a bitmap or run lengths are not of `size`, and when run lengths cannot
    be decoded or do not add up.
    """
    instance: MaskInstance
    if isinstance(entry, list | tuple):
        polygons = [_polygon(values) for values in entry]
        return PolygonInstance([p for p in polygons if len(p) >= MIN_POLYGON_VALUES], size)
    if isinstance(entry, dict):
        instance = RleInstance(_compressed(entry))
    elif isinstance(entry, np.ndarray | Tensor) and entry.ndim == 2:
        instance = BitmapInstance(torch.as_tensor(entry).cpu() != 0)
    else:
        raise ValueError(
            f"a mask is a list of polygons, run lengths or an array (h, w), got {type(entry).__name__}"
        )
    if instance.size != (int(size[0]), int(size[1])):
        raise ValueError(f"mask of size (w,h)={instance.size} in an image of size {size}")
    if isinstance(instance, RleInstance):
        _check_run_lengths(instance)
    return instance


def _polygon(values: Any) -> Tensor:
    """Convert to flat float32 (2 * points,) x0, y0, x1, y1, ...; ValueError for anything else."""
    try:
        polygon = torch.as_tensor(values, dtype=torch.float32).reshape(-1)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"a polygon is a list of numbers x, y, x, y, ... ({error})") from None
    if len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon)} values; they must be pairs x, y, x, y, ...")
    if not bool((polygon.abs() <= MAX_COORDINATE).all()):
        raise ValueError(f"a polygon with coordinates that are not finite or beyond {MAX_COORDINATE} pixels")
    return polygon


def _check_run_lengths(instance: RleInstance) -> None:
    """Raise ValueError unless the run lengths fill the mask."""
    try:
        coco_mask.decode(instance.rle)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"run lengths that do not describe a mask of (w,h)={instance.size} ({error})"
        ) from None


def clamp_window(box: Sequence[float], size: WidthHeight) -> tuple[float, float, float, float]:
    """Clamp (x0, y0, x1, y1) into an image of `size`: x0 in 0..W-1, x1 in 0..W, at least x0 + 1; y alike."""
    x0, y0, x1, y1 = box
    x0, y0 = min(max(x0, 0), size[0] - 1), min(max(y0, 0), size[1] - 1)
    x1, y1 = min(max(x1, 0), size[0]), min(max(y1, 0), size[1])
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _encode(bitmap: np.ndarray) -> dict[str, Any]:
    """Compressed run-length dict of a uint8 array (h, w)."""
    return coco_mask.encode(np.asfortranarray(bitmap))


def _compressed(rle: dict[str, Any]) -> dict[str, Any]:
    """Run-length dict with counts as bytes, from the compressed (text or bytes) or the list form."""
    missing = {"size", "counts"} - rle.keys()
    if missing:
        raise ValueError(f"run lengths without {' and '.join(sorted(missing))}")
    counts, size = rle["counts"], rle["size"]
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(v, int) for v in size)):
        raise ValueError(f"run lengths with the size {size!r}; expected [height, width]")
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError("run lengths that are no whole numbers from 0 on")
        if sum(counts) != size[0] * size[1]:
            raise ValueError(f"run lengths of {sum(counts)} pixels in a mask of (h,w)={tuple(size)}")
        return coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    if not isinstance(counts, str | bytes):
        raise ValueError(f"run lengths of type {type(counts).__name__}; expected text or a list")
    return {"size": list(size), "counts": counts.encode() if isinstance(counts, str) else counts}


def clip_polygon(polygon: Tensor, width: float, height: float) -> Tensor:
    """Clip a flat float32 polygon (2 * points,) x0, y0, x1, y1, ... to 0..width, 0..height; may become empty.

    Sutherland-Hodgman clipping: parts of a concave polygon stay joined by edges along the border, which
    enclose nothing.
    """
    points = polygon.numpy().astype(np.float64).reshape(-1, 2)
    for axis, side in ((0, width), (1, height)):
        points = _clip_half_plane(points, points[:, axis])
        points = _clip_half_plane(points, side - points[:, axis])
    # rounding of the crossings must not lead out again
    return torch.from_numpy(points.clip(0, (width, height)).astype(np.float32).reshape(-1))


def _clip_half_plane(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Closed polygon (M, 2): `points` (N, 2) without the part where the linear `distance` (N,) is below 0."""
    inside = distance >= 0
    if inside.all():
        return points
    following, after = np.roll(points, -1, axis=0), np.roll(distance, -1)
    crossing = inside != (after >= 0)
    fraction = distance / np.where(crossing, distance - after, 1.0)
    crossings = points + fraction[:, None] * (following - points)
    # every corner inside, and behind it the point where its edge crosses the border
    corners = np.stack([points, crossings], axis=1).reshape(-1, 2)
    return corners[np.stack([inside, crossing], axis=1).reshape(-1)]
