"""Progress lines of a long loop: how far, how fast, how long still."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable


def format_eta(seconds: float) -> str:
    """Time left as h:mm:ss, with days before it when there are any."""
    return str(datetime.timedelta(seconds=int(max(0.0, seconds))))


class Progress:
    """Logs "what: 123/500 (24.6 %), 0.12 s each, ETA 0:00:45" every `period_seconds` and at the end.

    Args:
        total: number of steps of the loop; None when nobody knows: lines then have neither share nor ETA.
        what: what the loop does.
        logger: where the lines go.
        period_seconds: least time between two lines.
        start: steps that were done before this process began (a resumed loop).
        clock: source of the time in seconds (replaced by tests).
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        logger: logging.Logger,
        period_seconds: float = 10.0,
        *,
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.done = start
        self._what = what
        self._logger = logger
        self._period = period_seconds
        self._start = start
        self._clock = clock
        self._began = self._logged = clock()

    @property
    def seconds_each(self) -> float:
        """Mean time of a step since the start; 0 before the first step."""
        steps = self.done - self._start
        return (self._clock() - self._began) / steps if steps else 0.0

    @property
    def eta_seconds(self) -> float:
        """Estimated time until the last step; 0 when their number is unknown."""
        return self.seconds_each * max(0, (self.total or 0) - self.done)

    def update(self, steps: int = 1, extra: str = "") -> None:
        """Count `steps` and log a line, ending with `extra`, when one is due."""
        self.done += steps
        now = self._clock()
        if (self.total is None or self.done < self.total) and now - self._logged < self._period:
            return
        self._logged = now
        line = f"{self._what}: {self.done}"
        if self.total is not None:
            line += f"/{self.total} ({100.0 * self.done / self.total if self.total else 100.0:.1f} %)"
        line += f", {self.seconds_each:.3g} s each"
        if self.total is not None:
            line += f", ETA {format_eta(self.eta_seconds)}"
        self._logger.info("%s%s", line, f", {extra}" if extra else "")
