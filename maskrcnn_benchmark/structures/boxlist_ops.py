"""Functions on boxes of one or several BoxLists: IoU, concatenation, filtering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.boxlist import BoxList


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (N, M) of xyxy boxes `a` (N, 4) and `b` (M, 4), inclusive +1 convention.

    Computed per coordinate, so that the largest temporary is (N, M); half precision is computed in float32.
    """
    if a.dtype in (torch.float16, torch.bfloat16):
        a, b = a.float(), b.float()
    area_a = (a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)
    area_b = (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)
    width = _common_length(a[:, 0], a[:, 2], b[:, 0], b[:, 2])
    intersection = width.mul_(_common_length(a[:, 1], a[:, 3], b[:, 1], b[:, 3]))
    return intersection / (area_a[:, None] + area_b[None, :] - intersection)


def boxlist_iou(a: BoxList, b: BoxList) -> Tensor:
    """IoU (N, M) of two BoxLists of one image; ValueError when their sizes differ."""
    if a.size != b.size:
        raise ValueError(f"boxes of images of different size: {a} and {b}")
    return box_iou(a.xyxy(), b.xyxy())


def cat_boxlist(boxlists: Sequence[BoxList]) -> BoxList:
    """Concatenate BoxLists in order; ValueError unless size, mode and field names agree."""
    if not boxlists:
        raise ValueError("cat_boxlist needs at least one BoxList")
    first = boxlists[0]
    for other in boxlists[1:]:
        if (other.size, other.mode, set(other.fields())) != (first.size, first.mode, set(first.fields())):
            raise ValueError(f"cannot concatenate {first} and {other}: size, mode and fields must agree")
    out = BoxList(torch.cat([bl.bbox for bl in boxlists]), first.size, first.mode)
    for name in first.fields():
        out.add_field(name, _cat_field([bl.get_field(name) for bl in boxlists]))
    return out


def remove_small_boxes(boxlist: BoxList, min_size: float) -> BoxList:
    """Select the boxes whose width and height (inclusive) are both at least `min_size`."""
    width, height = boxlist.convert("xywh").bbox[:, 2:].unbind(1)
    return boxlist[(width >= min_size) & (height >= min_size)]


def _common_length(a_low: Tensor, a_high: Tensor, b_low: Tensor, b_high: Tensor) -> Tensor:
    """Length (N, M) of the common interval of (N,) and (M,) intervals along one axis."""
    high = torch.minimum(a_high[:, None], b_high[None, :])
    return high.sub_(torch.maximum(a_low[:, None], b_low[None, :])).add_(1).clamp_(min=0)


def _cat_field(values: list[Any]) -> Any:
    """Concatenate tensors, objects by their method `cat`, or lists."""
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if hasattr(values[0], "cat"):
        return values[0].cat(values)
    return [item for value in values for item in value]
