"""Errors and deaths of loader workers are one line in the main process."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from maskrcnn_benchmark.data.loader import Loader, worker_error
from maskrcnn_benchmark.utils.errors import DataError, ProcessError

pytestmark = pytest.mark.dist


class Items:
    """Numbers 0..7; number 5 does something."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: int) -> Any:
        return self.action() if key == 5 else torch.full((1000,), float(key))


def batches(action: Callable[[], Any], workers: int, collate: Callable = torch.stack) -> list[Any]:
    keys = [[2 * i, 2 * i + 1] for i in range(4)]
    return list(Loader(Items(action), collate=collate, batch_sampler=keys, num_workers=workers))


def refuse() -> None:
    raise DataError("image 5 is missing")


def fail() -> None:
    raise KeyError("a bug")


def no_memory() -> None:
    raise MemoryError


def die(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def cannot_share() -> torch.Tensor:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    return torch.zeros(1000)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_arrive_as_they_are(workers: int) -> None:
    assert [b[0, 0].item() for b in batches(lambda: torch.zeros(1000), workers)] == [0, 2, 4, 6]
    with pytest.raises(DataError) as caught:
        batches(refuse, workers)
    assert str(caught.value) == "image 5 is missing"
    with pytest.raises(ProcessError, match=r"memory ran out .*NUM_WORKERS"):
        batches(no_memory, workers)
    with pytest.raises(KeyError, match="a bug"):
        batches(fail, workers)

    def spoil(samples: Any) -> None:
        raise DataError("images of other sizes")

    with pytest.raises(DataError, match="^images of other sizes$"):
        batches(refuse, workers, spoil)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "ran out of memory"),
        (signal.SIGBUS, "/dev/shm"),
        (signal.SIGSEGV, "native library"),
        (signal.SIGTERM, "stopped it"),
    ],
)
def test_a_dead_worker_is_named(number: int, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessError) as caught:
        batches(die(number), 2)
    text = str(caught.value)
    assert "\n" not in text and "loader worker " in text and "process id" in text
    assert f"killed by {signal.Signals(number).name}" in text and reason in text and "NUM_WORKERS" in text
    assert capfd.readouterr().err == ""


def test_a_worker_that_leaves_is_named() -> None:
    with pytest.raises(ProcessError, match="ended with status 3"):
        batches(lambda: os._exit(3), 2)


def test_a_batch_that_cannot_be_handed_over_ends_the_wait() -> None:
    with pytest.raises(ProcessError, match="shared memory is full"):
        batches(cannot_share, 2)


def test_a_death_is_noticed_while_the_main_process_works() -> None:
    """Torch's report comes at any moment, for example in a forward pass."""
    loader = iter(
        Loader(Items(die(signal.SIGKILL)), collate=torch.stack, batch_sampler=[[0], [1], [5]], num_workers=1)
    )
    next(loader)
    end = time.monotonic() + 60
    with pytest.raises(ProcessError, match="SIGKILL"):
        while time.monotonic() < end:
            time.sleep(0.01)


def test_reports_of_torch() -> None:
    files = worker_error(RuntimeError("Too many open files. Communication with the workers is no longer ..."))
    assert "ulimit -n" in str(files)
    other = RuntimeError("size mismatch")
    assert worker_error(other) is other
    unnamed = worker_error(RuntimeError("DataLoader worker (pid 7) is killed by signal: Strange one. "))
    assert "process id 7" in str(unnamed)
