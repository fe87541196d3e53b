"""Ctrl-C and SIGTERM that wait for the end of an iteration."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\nstopping: a checkpoint is saved after this iteration (once more: stop at once)\n"


class InterruptGuard:
    """Context manager: the first SIGINT or SIGTERM sets `requested`, the second raises KeyboardInterrupt.

    SIGTERM counts because torchrun and batch systems stop processes with it. Outside the main thread, where
    Python allows no handlers, it does nothing. Earlier handlers are restored at the end.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False
        self._pid = os.getpid()
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A forked loader worker: the parent handles Ctrl-C, the worker only termination.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.requested or self._at_once:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, NOTICE)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise KeyboardInterrupt at the first signal inside, for long work whose results are on disk."""
        if self.requested:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
