"""Loader processes end with the process that started them."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from maskrcnn_benchmark.data import build


def _load_for_ever() -> None:
    """Start loader processes again and again, as every test set of a run does."""
    while True:
        list(DataLoader(range(4), num_workers=2, worker_init_fn=build._start_worker))  # type: ignore[arg-type]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.dist
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_no_worker_outlives_a_killed_parent() -> None:
    """Torch's own watch leaves about every second worker behind when the parent dies while they start."""
    moments, workers = random.Random(0), []
    for _ in range(400):
        if len(workers) > 20:
            break
        parent = os.fork()
        if parent == 0:
            _load_for_ever()
        time.sleep(moments.uniform(0.002, 0.06))
        workers += [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    assert len(workers) > 5
    end = time.monotonic() + 10
    while any(map(_alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [pid for pid in workers if _alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"{len(left)} of {len(workers)} workers live on"
