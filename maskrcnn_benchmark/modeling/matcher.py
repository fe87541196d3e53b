"""Assignment of ground truth to anchors or proposals by IoU (Ren et al. 2015, section 3.1.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.boxlist_ops import box_iou

BELOW_LOW_THRESHOLD = -1
BETWEEN_THRESHOLDS = -2
MAX_PAIRS = 4_000_000
"""IoU values held at once (16 MB of float32): crowded images are matched in chunks of ground truth."""


class Matcher:
    """Match every box with the ground truth of highest IoU.

    A match is the index of the ground truth, BELOW_LOW_THRESHOLD for an IoU under `low`, BETWEEN_THRESHOLDS
    in [low, high). With `allow_low_quality`, a box that reaches the maximum IoU of any ground truth (ties
    included) is matched whatever its IoU, with the ground truth of its own highest IoU, which may be another
    one. `zero_iou_matches` keeps a quirk of the published code (parity): a ground truth whose maximum IoU is
    0 then promotes all boxes, as all of them reach it.
    """

    def __init__(
        self, high: float, low: float, *, allow_low_quality: bool = False, zero_iou_matches: bool = True
    ) -> None:
        if low > high:
            raise ValueError(f"matcher thresholds: low {low} is above high {high}")
        self.high = high
        self.low = low
        self.allow_low_quality = allow_low_quality
        self.zero_iou_matches = zero_iou_matches

    def match(self, targets: Tensor, boxes: Tensor) -> Tensor:
        """Match xyxy `boxes` (N, 4) with ground truth `targets` (G, 4); int64 (N,).

        Without ground truth all are BELOW_LOW_THRESHOLD. At most MAX_PAIRS IoU values exist at a time.
        """
        chunk = max(1, MAX_PAIRS // max(1, len(boxes)))
        state = _Best(len(boxes), boxes.device)
        for start in range(0, len(targets), chunk):
            self._update(state, box_iou(targets[start : start + chunk], boxes), start)
        return self._finish(state)

    def __call__(self, quality: Tensor) -> Tensor:
        """Match by a given quality matrix (G, N), ground truth by box; int64 (N,)."""
        state = _Best(quality.shape[1], quality.device)
        if len(quality):
            self._update(state, quality, 0)
        return self._finish(state)

    def _update(self, state: _Best, quality: Tensor, start: int) -> None:
        if quality.shape[1] == 0:
            return
        value, index = quality.max(dim=0)
        better = value > state.value
        state.value = torch.where(better, value, state.value)
        state.index = torch.where(better, index + start, state.index)
        if self.allow_low_quality:
            top = quality.max(dim=1, keepdim=True).values
            reached = quality == top
            if not self.zero_iou_matches:
                reached &= top > 0
            state.promoted |= reached.any(dim=0)

    def _finish(self, state: _Best) -> Tensor:
        matches = torch.where(state.value < self.high, BETWEEN_THRESHOLDS, state.index)
        matches = torch.where(state.value < self.low, BELOW_LOW_THRESHOLD, matches)
        return torch.where(state.promoted, state.index, matches) if self.allow_low_quality else matches


class _Best:
    """Running maximum IoU, its ground truth, and promotion flags, each (N,)."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.value = torch.full((count,), -1.0, device=device)
        self.index = torch.zeros((count,), dtype=torch.int64, device=device)
        self.promoted = torch.zeros((count,), dtype=torch.bool, device=device)
