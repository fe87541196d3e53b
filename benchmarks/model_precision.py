"""Mask R-CNN in mixed precision: bfloat16 beside float32, and what it changes in the detections."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import Call

from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import box_iou

SAME_IOU = 0.5
"""Min IoU at which two boxes of one class are the same detection."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; a processor without it emulates it, a hundred times slower."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(call: Call, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Call:
    """The call in mixed precision."""

    def mixed() -> object:
        with torch.autocast(device.type, dtype):
            return call()

    return mixed


def agreement(detect: Callable[[], BoxList], device: torch.device) -> str:
    """Describe how detections in bfloat16 differ from those in float32."""
    with torch.no_grad():
        exact, mixed = detect(), autocast(detect, device)()
    assert isinstance(mixed, BoxList)
    iou = box_iou(exact.bbox.float(), mixed.bbox.float())
    same_class = exact.get_field("labels")[:, None] == mixed.get_field("labels")[None, :]
    best, partner = torch.where(same_class, iou, -1.0).max(dim=1)
    matched = best >= SAME_IOU
    scores = (exact.get_field("scores") - mixed.get_field("scores")[partner]).abs()[matched]
    return (
        f"{int(matched.sum())} of {len(exact)} matched, mean IoU {float(best[matched].mean()):.3f}, "
        f"mean change of score {float(scores.mean()):.4f}"
    )
