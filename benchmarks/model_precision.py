"""Mask R-CNN in mixed precision: bfloat16 beside float32, and what it changes in the detections."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import Call

from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import box_iou

SAME_OVERLAP = 0.5
"""From this overlap on two boxes of one class are the same detection."""


def autocast(call: Call, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Call:
    """The call in mixed precision."""

    def mixed() -> object:
        with torch.autocast(device.type, dtype):
            return call()

    return mixed


def agreement(detect: Callable[[], BoxList], device: torch.device) -> str:
    """In words how detections in bfloat16 differ from those in float32."""
    with torch.no_grad():
        exact, mixed = detect(), autocast(detect, device)()
    assert isinstance(mixed, BoxList)
    overlap = box_iou(exact.bbox.float(), mixed.bbox.float())
    same_class = exact.get_field("labels")[:, None] == mixed.get_field("labels")[None, :]
    best, partner = torch.where(same_class, overlap, -1.0).max(dim=1)
    found = best >= SAME_OVERLAP
    scores = (exact.get_field("scores") - mixed.get_field("scores")[partner]).abs()[found]
    return (
        f"{int(found.sum())} of {len(exact)} found again, mean overlap {float(best[found].mean()):.3f}, "
        f"mean change of score {float(scores.mean()):.4f}"
    )
