"""Medians of times, peak memory, and lower bounds from the speed of the device."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.timer import Elapsed, median_of, now

Call = Callable[[], object]


def _seconds(call: Call, device: torch.device) -> Elapsed:
    start = now(device)
    result = call()
    end = now(device)
    del result
    return end - start


def median_times(
    calls: list[Call], device: torch.device, budget_s: float, min_rounds: int = 5
) -> list[Elapsed]:
    """Median milliseconds of each call on both clocks; they take turns, so other load slows all of them.

    One warm-up each, then rounds until `budget_s` seconds are over, at least `min_rounds` rounds.
    """
    for call in calls:
        _seconds(call, device)
    times: list[list[Elapsed]] = [[] for _ in calls]
    end = time.perf_counter() + budget_s
    while len(times[0]) < min_rounds or time.perf_counter() < end:
        for call, seconds in zip(calls, times, strict=True):
            seconds.append(_seconds(call, device))
    return [median_of(seconds).to_ms() for seconds in times]


def median_ms(calls: list[Call], device: torch.device, budget_s: float, min_rounds: int = 5) -> list[float]:
    """Median elapsed milliseconds of each call, see `median_times`."""
    return [times.wall for times in median_times(calls, device, budget_s, min_rounds)]


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def peak_mb(call: Call, device: torch.device) -> float | None:
    """Peak memory of one call above that before it, result included, in MiB.

    On the CPU from the peak of the resident set, which only Linux can reset: None elsewhere.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _seconds(call, device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        resident = _status_mb("VmRSS")
        _seconds(call, device)
        return _status_mb("VmHWM") - resident
    except (OSError, AttributeError, KeyError):
        return None


class DeviceSpeed:
    """Bandwidth (bytes per second) and float32 arithmetic (operations per second), measured once."""

    def __init__(self, device: torch.device) -> None:
        source = torch.ones(2**24 if device.type == "cpu" else 2**27, device=device)
        target = torch.empty_like(source)
        (copy_ms,) = median_ms([lambda: target.copy_(source)], device, 0.5)
        self.bandwidth = 2 * source.numel() * source.element_size() / copy_ms * 1000
        side = 1024 if device.type == "cpu" else 8192
        matrix = torch.ones(side, side, device=device)
        (product_ms,) = median_ms([lambda: matrix @ matrix], device, 0.5)
        self.arithmetic = 2 * side**3 / product_ms * 1000

    def bound_ms(self, moved: float, operations: float) -> float:
        """Min time for so many bytes and operations: the slower of the two, as if they ran at once."""
        return 1000 * max(moved / self.bandwidth, operations / self.arithmetic)


def size_of(*tensors: Tensor) -> int:
    """Bytes of the tensors together."""
    return sum(t.numel() * t.element_size() for t in tensors)
