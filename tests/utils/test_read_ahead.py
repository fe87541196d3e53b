"""Prefetching by a thread: order, bound, errors, and an end for each way to leave the block."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from maskrcnn_benchmark.utils.read_ahead import read_ahead


def no_thread_left() -> bool:
    return not any(thread.name == "read ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("count", [0, 1, 20])
def test_order_is_kept(count: int) -> None:
    with read_ahead(range(count), 3) as items:
        assert list(items) == list(range(count))
    assert no_thread_left()


def test_only_so_many_are_made_in_advance() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with read_ahead(numbers(), 2) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 300
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2, 3]  # one in use, two waiting, one waiting for a free slot
    assert no_thread_left()


def test_errors_come_after_the_items_before_them() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("disk gone")

    seen = []
    with pytest.raises(OSError, match="disk gone"), read_ahead(failing()) as items:
        for item in items:
            seen.append(item)
    assert seen == [1] and no_thread_left()


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_when_the_block_is_left(reason: type[BaseException]) -> None:
    with pytest.raises(reason), read_ahead(itertools.count()) as items:
        next(items)
        raise reason
    assert no_thread_left()
