"""Progress of a long loop: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm


class _Bar(tqdm):
    """A tqdm bar without the thread that redraws bars of stalled loops."""

    monitor_interval = 0


def format_eta(seconds: float) -> str:
    """Format the time left as h:mm:ss, with days before it when there are any."""
    return str(datetime.timedelta(seconds=int(max(0.0, seconds))))


@contextmanager
def bars_hidden(stream: TextIO) -> Iterator[None]:
    """Clear the bars on the terminal while something is written to `stream`, then draw them again."""
    if getattr(_Bar, "_instances", None):
        with _Bar.external_write_mode(file=stream):
            yield
    else:
        yield


class Progress:
    """Show how far a loop is, its speed and the estimated time left.

    When standard error is a terminal, a tqdm bar is drawn there, and a line is logged at the end. Otherwise
    "what: 123/500 (24.6 %), 0.12 s each, ETA 0:00:45" is logged every `period_seconds` and at the end.

    Args:
        total: length of the loop; None when it is unknown: lines then have neither percentage nor ETA.
        what: what the loop does.
        logger: where the lines go; no bar is drawn when it does not log INFO.
        period_seconds: minimum time between two lines; with 0 every update is logged, and there is no bar.
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
        self._bar: _Bar | None = None
        if period_seconds > 0 and total != 0 and logger.isEnabledFor(logging.INFO) and sys.stderr.isatty():
            self._bar = _Bar(desc=what, total=total, initial=start, leave=False, dynamic_ncols=True)

    @property
    def seconds_each(self) -> float:
        """Mean time of a step since the start; 0 before the first step."""
        steps = self.done - self._start
        return (self._clock() - self._began) / steps if steps else 0.0

    @property
    def eta_seconds(self) -> float:
        """Estimated time until the last step; 0 when the length of the loop is unknown."""
        return self.seconds_each * max(0, (self.total or 0) - self.done)

    def update(self, steps: int = 1, extra: str = "") -> None:
        """Count `steps`, and move the bar or log a line when one is due; `extra` stands at its end."""
        self.done += steps
        complete = self.total is not None and self.done >= self.total
        if self._bar is not None and not complete:
            self._bar.set_postfix_str(extra, refresh=False)
            self._bar.update(steps)
            return
        self.close()
        now = self._clock()
        if complete or now - self._logged >= self._period:
            self._logged = now
            self._logger.info("%s%s", self._line(), f", {extra}" if extra else "")

    def close(self) -> None:
        """Remove the bar; the end of the loop does it, and a loop that may stop early should."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self) -> str:
        """Text of a log line."""
        line = f"{self._what}: {self.done}"
        if self.total is not None:
            line += f"/{self.total} ({100.0 * self.done / self.total if self.total else 100.0:.1f} %)"
        line += f", {self.seconds_each:.3g} s each"
        return line if self.total is None else f"{line}, ETA {format_eta(self.eta_seconds)}"
