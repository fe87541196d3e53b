"""Prefetch items of an iterator in a background thread while earlier ones are processed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_POLL_S = 0.1


class _Failure:
    """Exception that ended the thread; None for the ordinary end of the iterator."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Reader(threading.Thread, Generic[Item]):
    """Puts items into a bounded queue until the iterator ends, fails, or the consumer stops."""

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        super().__init__(name="read ahead", daemon=True)
        self.items = items
        self.queue: queue.Queue[Any] = queue.Queue(max(1, depth))
        self.stopped = threading.Event()

    def run(self) -> None:
        """Iterate in the thread."""
        end = _Failure(None)
        try:
            for item in self.items:
                if not self._put(item):
                    return
        except BaseException as error:  # raised again where the items are used
            end = _Failure(error)
        self._put(end)

    def _put(self, item: Any) -> bool:
        while not self.stopped.is_set():
            try:
                self.queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def results(self) -> Iterator[Item]:
        """Yield the items in order; an exception of the thread is raised after the items before it."""
        while True:
            item = self.queue.get()
            if isinstance(item, _Failure):
                if item.error is not None:
                    raise item.error
                return
            yield item


@contextmanager
def read_ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Iterator[Item]]:
    """Context with an iterator over `items`, up to `depth` of which a thread prefetches.

    Order and exceptions are those of `items`. When the block is left, for whatever reason (Ctrl-C too), the
    thread stops after its current item. `items` must not be used elsewhere meanwhile.
    """
    reader = _Reader(items, depth)
    reader.start()
    try:
        yield reader.results()
    finally:
        reader.stopped.set()
        reader.join()
