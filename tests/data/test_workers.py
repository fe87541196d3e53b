"""Loader processes end with the process that started them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from maskrcnn_benchmark.data.loader import start_worker

KILLS = 20
SECONDS = 300.0
"""Bound of each wait for an event: it says that the event does not come, not how fast it comes."""


def _load_for_ever() -> None:
    """Start loader processes again and again, as every test set of a run does."""
    while True:
        list(DataLoader(range(4), num_workers=2, worker_init_fn=start_worker))  # type: ignore[arg-type]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(event: Callable[[], bool]) -> bool:
    """Whether the event comes."""
    end = time.monotonic() + SECONDS
    while not event():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


@pytest.mark.dist
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_no_worker_outlives_a_killed_parent() -> None:
    """Torch's own watch leaves about every second worker behind when the parent dies while they start."""
    moments, workers = random.Random(0), []
    for _ in range(KILLS):
        parent = os.fork()
        if parent == 0:
            _load_for_ever()
        try:
            assert _wait_until(lambda parent=parent: bool(_children(parent)))  # type: ignore[misc]
            time.sleep(moments.choice([0, moments.uniform(0, 0.03)]))
        finally:
            os.kill(parent, signal.SIGSTOP)  # its list of children stays as it is read
            workers += _children(parent)
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
    assert workers
    ended = _wait_until(lambda: not any(map(_alive, workers)))
    left = [pid for pid in workers if _alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert ended, f"{len(left)} of {len(workers)} workers live on"
