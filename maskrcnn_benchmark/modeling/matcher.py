"""Assignment of ground truth to anchors or proposals by overlap (core spec 7)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.boxlist_ops import box_iou

BELOW_LOW = -1
BETWEEN = -2
MAX_PAIRS = 4_000_000
"""Overlaps held at once (16 MB of float32): crowded images are worked through in groups of ground truth."""


class Matcher:
    """Best ground truth per prediction: its index, BELOW_LOW under `low`, BETWEEN in [low, high).

    With `allow_low_quality`, every prediction that reaches the maximum of any ground
    truth (ties included) gets back its own best ground truth, which may be another
    one. `zero_overlap_matches` keeps a quirk of the original (parity): a ground
    truth that overlaps nothing then promotes all predictions it does not overlap.
    """

    def __init__(
        self, high: float, low: float, *, allow_low_quality: bool = False, zero_overlap_matches: bool = True
    ) -> None:
        if low > high:
            raise ValueError(f"matcher thresholds: low {low} is above high {high}")
        self.high = high
        self.low = low
        self.allow_low_quality = allow_low_quality
        self.zero_overlap_matches = zero_overlap_matches

    def match(self, targets: Tensor, boxes: Tensor) -> Tensor:
        """Int64 (N,) matches of xyxy `boxes` (N,4) with ground truth `targets` (G,4).

        No ground truth: all BELOW_LOW. Memory is bounded: at most MAX_PAIRS overlaps exist at a time.
        """
        rows = max(1, MAX_PAIRS // max(1, len(boxes)))
        state = _Best(len(boxes), boxes.device)
        for start in range(0, len(targets), rows):
            self._update(state, box_iou(targets[start : start + rows], boxes), start)
        return self._finish(state)

    def __call__(self, quality: Tensor) -> Tensor:
        """Matches (N,) from a given quality matrix (G,N), rows are ground truth."""
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
            if not self.zero_overlap_matches:
                reached &= top > 0
            state.promoted |= reached.any(dim=0)

    def _finish(self, state: _Best) -> Tensor:
        matches = torch.where(state.value < self.high, BETWEEN, state.index)
        matches = torch.where(state.value < self.low, BELOW_LOW, matches)
        return torch.where(state.promoted, state.index, matches) if self.allow_low_quality else matches


class _Best:
    """Running best overlap, its ground truth, and promotion flags, each (N,)."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.value = torch.full((count,), -1.0, device=device)
        self.index = torch.zeros((count,), dtype=torch.int64, device=device)
        self.promoted = torch.zeros((count,), dtype=torch.bool, device=device)
