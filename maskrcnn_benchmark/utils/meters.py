"""Running statistics of training metrics in constant memory."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

from torch import Tensor


class Meter:
    """Statistics of one scalar: median of the last `window` values, average of all."""

    def __init__(self, window: int) -> None:
        self._recent: deque[float] = deque(maxlen=window)
        self._total = 0.0
        self._count = 0

    def update(self, value: float) -> None:
        """Add one value."""
        self._recent.append(value)
        self._total += value
        self._count += 1

    @property
    def median(self) -> float:
        """Median of the window (the lower one of an even count); NaN before the first value."""
        return statistics.median_low(self._recent) if self._recent else math.nan

    @property
    def average(self) -> float:
        """Mean of all values so far; NaN before the first value."""
        return self._total / self._count if self._count else math.nan

    @property
    def latest(self) -> float:
        """Last value; NaN before the first value."""
        return self._recent[-1] if self._recent else math.nan

    def state_dict(self) -> dict[str, Any]:
        """State from which `load_state_dict` resumes exactly."""
        return {"recent": list(self._recent), "total": self._total, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict` of an earlier run; a shorter window keeps the newest values."""
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._total = float(state["total"])
        self._count = int(state["count"])


class MetricLogger:
    """Meters by name, created at first use and listed in that order."""

    def __init__(self, window: int = 20) -> None:
        self._window = window
        self.meters: dict[str, Meter] = {}

    def update(self, **scalars: float | Tensor) -> None:
        """Add one value to each named meter; tensors must be scalars ()."""
        for name, value in scalars.items():
            scalar = float(value.detach()) if isinstance(value, Tensor) else float(value)
            self.meters.setdefault(name, Meter(self._window)).update(scalar)

    def medians(self) -> dict[str, float]:
        """Median of the window of each meter."""
        return {name: meter.median for name, meter in self.meters.items()}

    def averages(self) -> dict[str, float]:
        """Average since the start of each meter."""
        return {name: meter.average for name, meter in self.meters.items()}

    def state_dict(self) -> dict[str, Any]:
        """State of each meter by name (see `Meter.state_dict`)."""
        return {name: meter.state_dict() for name, meter in self.meters.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict` of an earlier run; meters of this run are dropped."""
        self.meters = {}
        for name, meter_state in state.items():
            self.meters[name] = Meter(self._window)
            self.meters[name].load_state_dict(meter_state)

    def __str__(self) -> str:
        return "  ".join(f"{n}: {m.median:.4f} ({m.average:.4f})" for n, m in self.meters.items())
