"""Faults made on purpose, by which the campaign is tested."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from runner import SilentDifference

from maskrcnn_benchmark.utils.errors import DataError


def _refuse() -> None:
    raise DataError("one line")


def _refuse_in_lines() -> None:
    raise DataError("two\nlines")


def _differ() -> None:
    raise SilentDifference("other values")


def _eat_memory() -> None:
    bytearray(1 << 40)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    while True:
        time.sleep(0.01)


def _hang_in_native_code() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    ctypes.CDLL(None).pause()


FAULTS: list[tuple[str, Callable[[], object]]] = [
    ("accepted", lambda: None),
    ("refused", _refuse),
    ("untidy", _refuse_in_lines),
    ("silent", _differ),
    ("memory", _eat_memory),
    ("crash", _kill),
    ("traceback", lambda: 1 // 0),
    ("hang", _hang),
    ("hang", _hang_in_native_code),
]


class SelfTest:
    """Each case ends as the entry of FAULTS that it samples says."""

    name = "selftest"

    def prepare(self, folder: Path) -> None:
        """Nothing to make."""

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Sample an entry."""
        number = rng.randrange(len(FAULTS))
        (folder / "expected").write_text(FAULTS[number][0])
        return FAULTS[number][1]
