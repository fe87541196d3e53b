"""Boxes of one image with their fields.

Coordinates are pixels in the inclusive convention of the published models: a box covers the pixels x1..x2,
so its width is x2 - x1 + 1. Labels are 1..C, 0 is background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.geometry import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, check_flip

__all__ = ["FLIP_LEFT_RIGHT", "FLIP_TOP_BOTTOM", "BoxList"]

Index = Tensor | slice | int | Sequence[int]


class BoxList:
    """Float boxes (N, 4) of an image of `size` = (width, height), and named fields with N entries each.

    A field is a tensor whose first dimension is N, or an object with `__len__`, `__getitem__`, `resize`,
    `transpose`, `crop` and `cut` (masks, keypoints). No operation changes a BoxList in place except
    `add_field`.
    """

    def __init__(
        self, bbox: Tensor | Sequence[Sequence[float]], image_size: tuple[int, int], mode: str = "xyxy"
    ) -> None:
        """Store `bbox` ((N, 4), float32 unless it is a floating tensor) in `mode` "xyxy" or "xywh".

        Raises ValueError for another mode or shape.
        """
        if mode not in ("xyxy", "xywh"):
            raise ValueError(f'box mode must be "xyxy" or "xywh", got {mode!r}')
        boxes = bbox if isinstance(bbox, Tensor) else torch.tensor(bbox, dtype=torch.float32)
        if not boxes.is_floating_point():
            boxes = boxes.to(torch.float32)
        if boxes.numel() == 0 and boxes.dim() < 2:
            boxes = boxes.reshape(0, 4)
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes must have the shape (N, 4), got {tuple(boxes.shape)}")
        self.bbox = boxes
        self.size = (image_size[0], image_size[1])
        self.mode = mode
        self.extra_fields: dict[str, Any] = {}

    def add_field(self, name: str, value: Any) -> None:
        """Attach `value` under `name`; ValueError when its length is not the number of boxes."""
        if hasattr(value, "__len__") and len(value) != len(self):
            raise ValueError(f"field {name!r} has {len(value)} entries for {len(self)} boxes")
        self.extra_fields[name] = value

    def get_field(self, name: str) -> Any:
        """Return the field `name`; KeyError that lists the present fields when it is missing."""
        if name not in self.extra_fields:
            raise KeyError(f"no field {name!r}; this BoxList has {sorted(self.extra_fields)}")
        return self.extra_fields[name]

    def has_field(self, name: str) -> bool:
        """Whether the field `name` is attached."""
        return name in self.extra_fields

    def fields(self) -> list[str]:
        """Names of the attached fields in the order they were added."""
        return list(self.extra_fields)

    def copy_with_fields(self, names: str | Iterable[str], skip_missing: bool = False) -> BoxList:
        """Copy the boxes with only the fields `names`; KeyError for a missing one unless `skip_missing`."""
        selected = [names] if isinstance(names, str) else list(names)
        out = BoxList(self.bbox, self.size, self.mode)
        for name in selected:
            if self.has_field(name) or not skip_missing:
                out.extra_fields[name] = self.get_field(name)
        return out

    def xyxy(self) -> Tensor:
        """Boxes (N, 4) as x1, y1, x2, y2 (the stored tensor itself when the mode is "xyxy")."""
        if self.mode == "xyxy":
            return self.bbox
        x, y, w, h = self.bbox.unbind(1)
        return torch.stack((x, y, x + (w - 1).clamp(min=0), y + (h - 1).clamp(min=0)), dim=1)

    def convert(self, mode: str) -> BoxList:
        """Convert the boxes to `mode` "xyxy" or "xywh"; fields are shared."""
        if mode == self.mode:
            return self._like(self.bbox)
        if mode == "xyxy":
            return self._like(self.xyxy(), mode=mode)
        x1, y1, x2, y2 = self.bbox.unbind(1)
        return self._like(torch.stack((x1, y1, x2 - x1 + 1, y2 - y1 + 1), dim=1), mode=mode)

    def resize(self, size: tuple[int, int]) -> BoxList:
        """Scale boxes and object fields to an image of `size` (width, height).

        parity: equal ratios scale the four values of the current mode; otherwise x and y of the xyxy form.
        """
        ratio_w, ratio_h = (float(new) / float(old) for new, old in zip(size, self.size, strict=True))
        if ratio_w == ratio_h:
            out = self._like(self.bbox * ratio_w, size)
        else:
            factors = self.bbox.new_tensor((ratio_w, ratio_h, ratio_w, ratio_h))
            out = self._like(self.xyxy() * factors, size, "xyxy").convert(self.mode)
        return out._map_objects(lambda field: field.resize(size))

    def transpose(self, method: int) -> BoxList:
        """Flip boxes and object fields by FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM.

        x' = W - x - 1, and likewise y' = H - y - 1: in the published code the top-bottom flip of boxes lacks
        the -1 that its masks have; here boxes and masks stay aligned.
        """
        check_flip(method)
        x1, y1, x2, y2 = self.xyxy().unbind(1)
        width, height = self.size
        if method == FLIP_LEFT_RIGHT:
            flipped = torch.stack((width - x2 - 1, y1, width - x1 - 1, y2), dim=1)
        else:
            flipped = torch.stack((x1, height - y2 - 1, x2, height - y1 - 1), dim=1)
        out = self._like(flipped, mode="xyxy").convert(self.mode)
        return out._map_objects(lambda field: field.transpose(method))

    def crop(self, box: Sequence[float]) -> BoxList:
        """Boxes relative to the window (x0, y0, x1, y1), clamped to 0..w and 0..h with w = x1 - x0 (no +1).

        Empty boxes are kept, so that fields stay aligned.
        """
        x0, y0, x1, y1 = (float(v) for v in box)
        width, height = x1 - x0, y1 - y0
        xs = (self.xyxy()[:, 0::2] - x0).clamp(0, width)
        ys = (self.xyxy()[:, 1::2] - y0).clamp(0, height)
        cropped = torch.stack((xs[:, 0], ys[:, 0], xs[:, 1], ys[:, 1]), dim=1)
        out = self._like(cropped, (_whole(width), _whole(height)), "xyxy").convert(self.mode)
        return out._map_objects(lambda field: field.crop(box))

    def cut(self, window: tuple[int, int, int, int]) -> BoxList:
        """Cut boxes, masks and points at `window` (left, top, right, bottom; whole pixels), relative to it.

        The window may extend beyond the image. All entries stay; boxes are clamped to the window, so that
        one outside it becomes empty or thin (`clip_to_image` removes such boxes).
        """
        x0, y0, x1, y1 = window
        boxes = self.xyxy() - self.bbox.new_tensor((x0, y0, x0, y0))
        out = self._like(boxes, (x1 - x0, y1 - y0), "xyxy").clip_to_image(remove_empty=False)
        return out.convert(self.mode)._map_objects(lambda field: field.cut(window))

    def clip_to_image(self, remove_empty: bool = True) -> BoxList:
        """Clamp boxes to x in 0..W-1, y in 0..H-1; with `remove_empty` only those with x2 > x1 and y2 > y1.

        parity: a box one pixel wide counts as empty.
        """
        boxes, (width, height) = self.xyxy(), self.size
        xs, ys = boxes[:, 0::2].clamp(0, width - 1), boxes[:, 1::2].clamp(0, height - 1)
        clipped = torch.stack((xs[:, 0], ys[:, 0], xs[:, 1], ys[:, 1]), dim=1)
        out = self._like(clipped, mode="xyxy").convert(self.mode)
        if not remove_empty:
            return out
        return out[(clipped[:, 3] > clipped[:, 1]) & (clipped[:, 2] > clipped[:, 0])]

    def area(self) -> Tensor:
        """Areas (N,): (x2-x1+1)(y2-y1+1), or w*h in mode "xywh"."""
        if self.mode == "xywh":
            return self.bbox[:, 2] * self.bbox[:, 3]
        return (self.bbox[:, 2] - self.bbox[:, 0] + 1) * (self.bbox[:, 3] - self.bbox[:, 1] + 1)

    def to(self, device: torch.device | str) -> BoxList:
        """Copy boxes and fields to `device` (masks keep their polygons on the CPU)."""
        out = BoxList(self.bbox.to(device), self.size, self.mode)
        for name, value in self.extra_fields.items():
            out.extra_fields[name] = value.to(device) if hasattr(value, "to") else value
        return out

    def __getitem__(self, index: Index) -> BoxList:
        """Select boxes by a boolean mask, indices, a slice or one index, with all their fields."""
        if isinstance(index, int):
            index = [index]
        out = BoxList(self.bbox[index], self.size, self.mode)
        for name, value in self.extra_fields.items():
            out.extra_fields[name] = value[index]
        return out

    def __len__(self) -> int:
        """Number of boxes."""
        return self.bbox.shape[0]

    def __repr__(self) -> str:
        """Short description: count, size, mode and field names."""
        return f"BoxList({len(self)} boxes, size={self.size}, mode={self.mode!r}, fields={self.fields()})"

    def _like(self, bbox: Tensor, size: tuple[int, int] | None = None, mode: str | None = None) -> BoxList:
        """BoxList of `bbox` with the fields of this one, and its size and mode unless others are given."""
        out = BoxList(bbox, size or self.size, mode or self.mode)
        out.extra_fields = dict(self.extra_fields)
        return out

    def _map_objects(self, change: Any) -> BoxList:
        """Replace every field that is not a tensor by `change(field)`."""
        for name, value in self.extra_fields.items():
            if hasattr(value, "transpose") and not isinstance(value, Tensor):
                self.extra_fields[name] = change(value)
        return self


def _whole(value: float) -> Any:
    """Convert a whole `value` to int: image sizes stay ints where they can."""
    return int(value) if value == int(value) else value
