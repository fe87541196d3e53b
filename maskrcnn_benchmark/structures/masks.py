"""Masks of the objects of one image: polygons, run lengths or bitmaps behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.geometry import check_flip
from maskrcnn_benchmark.structures.mask_instances import (
    MaskInstance,
    PolygonInstance,
    WidthHeight,
    Window,
    clamp_window,
    instance_from,
)


class SegmentationMask:
    """Masks of N objects in an image of `size` (width, height); polygons stay polygons under all geometry.

    Every object keeps its form, so that one image may mix polygons and run lengths. An object whose
    polygons are all invalid (fewer than 3 points) stays as an empty mask: boxes and masks never lose their
    alignment. All data is on the CPU. Polygon coordinates are float32 pixels (parity).
    """

    def __init__(self, instances: Any, size: WidthHeight, mode: str = "poly") -> None:
        """Build from annotation entries.

        mode "poly" or "rle": per object a list of flat polygons [x0, y0, x1, y1, ...] or a run-length dict
        (compressed or not). mode "mask": a tensor (N, h, w), bool or number (non-zero is inside).
        Raises ValueError for another mode or a bitmap whose size is not `size`.
        """
        if mode not in ("poly", "rle", "mask"):
            raise ValueError(f'mask mode must be "poly", "rle" or "mask", got {mode!r}')
        self.size = (size[0], size[1])
        self._items: list[MaskInstance] = [instance_from(entry, self.size) for entry in instances]

    @property
    def mode(self) -> str:
        """ "poly" when every object is made of polygons, else "mask"."""
        return "poly" if all(isinstance(item, PolygonInstance) for item in self._items) else "mask"

    def transpose(self, method: int) -> SegmentationMask:
        """Flip by FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM: coordinate' = side - coordinate - 1."""
        check_flip(method)
        return self._like([item.transpose(method) for item in self._items], self.size)

    def crop(self, box: Sequence[float]) -> SegmentationMask:
        """Crop to the window (x0, y0, x1, y1), at least one pixel wide and high.

        parity: polygons are shifted and not cut and keep the fractions of the window, whose origin alone is
        clamped into the image. Bitmaps, and polygons among bitmaps, use the window rounded and clamped.
        """
        values = [float(v) for v in box]
        if self.mode == "poly":
            size = (max(values[2] - values[0], 1.0), max(values[3] - values[1], 1.0))
            return self._like([item.crop(values) for item in self._items], size)
        window = clamp_window([round(v) for v in values], self.size)
        items = [item.crop(window) for item in self._items]
        return self._like(items, (window[2] - window[0], window[3] - window[1]))

    def cut(self, window: Window) -> SegmentationMask:
        """Cut the masks at the border of `window`; pixels beyond the image are outside all masks."""
        size = (window[2] - window[0], window[3] - window[1])
        return self._like([item.cut(window) for item in self._items], size)

    def resize(self, size: tuple[int, int], *, full_cover: bool = False) -> SegmentationMask:
        """Scale to `size` (width, height).

        Bitmaps are interpolated bilinearly (align_corners False) and kept where at least half is inside; with
        `full_cover` only where the value reaches 1 (what the original got by truncating uint8).
        """
        return self._like([item.resize(size, full_cover) for item in self._items], size)

    def polygons(self) -> list[list[Tensor]]:
        """Polygons per object, flat float32 (2 * points,) x0, y0, x1, y1, ...; ValueError in mode "mask"."""
        out = []
        for item in self._items:
            if not isinstance(item, PolygonInstance):
                raise ValueError(
                    "polygons() needs masks that are all polygons; use to_bitmaps() or to_rles()"
                )
            out.append(list(item.polygons))
        return out

    def to_bitmaps(self) -> Tensor:
        """Bitmaps (N, h, w), bool, on the CPU: polygons rasterised by the COCO rule, size in whole pixels."""
        width, height = int(self.size[0]), int(self.size[1])
        if not self._items:
            return torch.zeros((0, height, width), dtype=torch.bool)
        return torch.stack([item.to_bitmap() for item in self._items])

    def to_rles(self) -> list[dict[str, Any]]:
        """Compressed run-length dict per object, {"size": [h, w], "counts": bytes} of pycocotools."""
        return [item.to_rle() for item in self._items]

    def box_targets(
        self, instance_of_box: Sequence[int] | Tensor, boxes: Tensor, size: int, *, full_cover: bool = False
    ) -> Tensor:
        """Mask targets (R, size, size), bool: for each of the boxes (R, 4) xyxy its object's mask, resized.

        Box r belongs to object `instance_of_box[r]`. The general path for any mixture of forms; polygons have
        a native one in `layers`.
        """
        out = torch.zeros((len(boxes), size, size), dtype=torch.bool)
        rows = zip(torch.as_tensor(instance_of_box).tolist(), boxes.tolist(), strict=True)
        for slot, (instance, box) in zip(out, rows, strict=True):
            slot.copy_(self._items[instance].crop(box).resize((size, size), full_cover).to_bitmap())
        return out

    @staticmethod
    def cat(parts: Sequence[SegmentationMask]) -> SegmentationMask:
        """Concatenate the objects of all `parts` (of one image size) in order."""
        return parts[0]._like([item for part in parts for item in part._items], parts[0].size)

    def __getitem__(self, index: Any) -> SegmentationMask:
        """Select objects by a boolean mask, indices, a slice or one index."""
        if isinstance(index, int):
            index = [index]
        if isinstance(index, slice):
            return self._like(self._items[index], self.size)
        index = torch.as_tensor(index, device="cpu").reshape(-1)
        if index.dtype == torch.bool:
            if len(index) != len(self):
                raise IndexError(f"boolean mask of {len(index)} entries for {len(self)} objects")
            index = index.nonzero().flatten()
        return self._like([self._items[int(i)] for i in index], self.size)

    def __len__(self) -> int:
        """Number of objects."""
        return len(self._items)

    def __repr__(self) -> str:
        """Short description: count, size and mode."""
        return f"SegmentationMask({len(self)} objects, size={self.size}, mode={self.mode!r})"

    def _like(self, items: Sequence[MaskInstance], size: WidthHeight) -> SegmentationMask:
        """SegmentationMask of given instances."""
        out = SegmentationMask([], size)
        out._items = list(items)
        return out
