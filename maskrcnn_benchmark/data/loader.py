"""A DataLoader whose worker processes report errors as the main process does: in one line.

UsageErrors cross from a worker unchanged. A worker that dies is named with the likely reason, whatever the
main process does at that moment: torch reports it by SIGCHLD.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.queues
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from maskrcnn_benchmark.utils.errors import ProcessError, UsageError
from maskrcnn_benchmark.utils.processes import describe_end

_FEWER = "lower DATALOADER.NUM_WORKERS"
_ENDING_SECONDS = 1.0
# Exit status of a worker that cannot hand a batch over -> why.
_NO_SHARED_MEMORY, _NO_FILES = 74, 75
_STATUS = {
    _NO_SHARED_MEMORY: f"shared memory is full: enlarge /dev/shm (docker run --shm-size) or {_FEWER}",
    _NO_FILES: f"too many open files: raise `ulimit -n` or {_FEWER}",
}
_DEAD = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (.+?)\. |exited unexpectedly"
    r"(?: with exit code (\d+))?)"
)


@dataclass(frozen=True)
class _Failed:
    """What a worker sends instead of a batch."""

    error: UsageError


class Loader(DataLoader):
    """Loader of collated batches of a map-style data set.

    Iterating raises UsageErrors of the data set as they are, and ProcessError for a worker that died.
    """

    def __init__(self, dataset: Any, *, collate: Callable[[Sequence[Any]], Any], **options: Any) -> None:
        """`options`: those of DataLoader with `batch_sampler`."""
        super().__init__(
            _Fetcher(dataset),  # type: ignore[arg-type]
            collate_fn=partial(_collate, collate),
            worker_init_fn=start_worker,
            **options,
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Start the workers and iterate over the batches."""
        batches = super().__iter__()
        if self.num_workers:
            _name_dead_workers()
        return _checked(batches)


class _Fetcher:
    """The data set with its errors as values."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[Any]) -> list[Any] | _Failed:
        return _attempt(lambda: [self.dataset[key] for key in keys])


def _collate(collate: Callable[[Sequence[Any]], Any], samples: list[Any] | _Failed) -> Any:
    return samples if isinstance(samples, _Failed) else _attempt(lambda: collate(samples))


def _attempt(action: Callable[[], Any]) -> Any:
    """The result of `action`, or what it failed with when the user can act on it."""
    try:
        return action()
    except UsageError as error:
        return _Failed(error)
    except MemoryError:
        pass
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
    reason = f"memory ran out while a batch was loaded: {_FEWER}, the batch or the image sizes"
    return _Failed(ProcessError(reason))


def _checked(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; raises what came instead of one. Workers end with the iterator, not when it is collected:
    one that lives on is inherited by the workers of later loaders, whose end it delays.
    """
    process = os.getpid()
    try:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, ProcessError, OSError, EOFError) as error:
                named = _dead_worker(batches) or worker_error(error)
                if isinstance(named, ProcessError):
                    _stop(batches)
                if named is error:
                    raise
                raise named from None
            if isinstance(batch, _Failed):
                raise batch.error
            yield batch
    finally:
        end: Any = getattr(batches, "_shutdown_workers", None)
        if end is not None and os.getpid() == process:
            end()


def _dead_worker(batches: Any) -> ProcessError | None:
    """The error for the first worker of torch's iterator that died; None when all live.

    A connection may break before the process has ended, so this waits a little.
    """
    workers = getattr(batches, "_workers", ())
    if not workers:
        return None
    ending = multiprocessing.connection.wait([w.sentinel for w in workers], timeout=_ENDING_SECONDS)
    for number, worker in enumerate(workers):
        if worker.sentinel in ending:
            worker.join(_ENDING_SECONDS)  # its files are closed before it has ended
        if worker.exitcode:
            which = f"loader worker {number} of {len(workers)} (process id {worker.pid})"
            return _death(which, worker.exitcode)
    return None


def _stop(batches: Any) -> None:
    """Kill the other workers: torch would wait for them, and report their end too."""
    if getattr(batches, "_worker_pids_set", False):
        batches._worker_pids_set = False
        signal_handling._remove_worker_pids(id(batches))
    for worker in getattr(batches, "_workers", ()):
        worker.kill()


def _death(which: str, status: int) -> ProcessError:
    how = f"stopped: {_STATUS[status]}" if status in _STATUS else f"{describe_end(status)}; {_FEWER}"
    return ProcessError(f"{which} {how} (with 0 the main process loads, and shows errors in full)")


def worker_error(error: Exception) -> Exception:
    """The ProcessError for torch's report of a dead worker; another `error` as it is."""
    text = str(error)
    if text.startswith("Too many open files"):
        return ProcessError(f"the loader workers have {_STATUS[_NO_FILES]}")
    dead = _DEAD.search(text)
    if dead is None:
        return error
    pids, name, status = dead.groups()
    numbers = {signal.strsignal(number): -number for number in signal.Signals}
    code = numbers.get(name, 1) if name else int(status or 1)
    return _death(f"the loader worker with process id {pids}", code)


def _name_dead_workers() -> None:
    """Let torch's handler of SIGCHLD raise ProcessErrors."""
    report: Any = signal.getsignal(signal.SIGCHLD)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not callable(report) or isinstance(report, _Reporter):
        return
    signal.signal(signal.SIGCHLD, _Reporter(report))


class _Reporter:
    """Handler of SIGCHLD that says in one line what torch's handler has to say."""

    def __init__(self, report: Callable[[int, Any], None]) -> None:
        self._report = report

    def __call__(self, number: int, frame: Any) -> None:
        try:
            self._report(number, frame)
        except RuntimeError as error:
            raise worker_error(error) from None


def start_worker(worker: int) -> None:
    """Start a worker with one thread; it ends with the process that started it, or when it cannot send."""
    torch.set_num_threads(1)
    for number in (signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)  # torch's handlers print a line of their own
    # torch would print a traceback, and the main process would wait for the batch for ever
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_end_unsent)
    sys.excepthook = _report_unless_left
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _report_unless_left(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Report an error of a thread of a worker, unless the main process has closed its connection."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _end_unsent(error: Exception, batch: Any) -> None:
    """End a worker whose batch cannot be sent."""
    os._exit(_NO_FILES if "open files" in str(error) else _NO_SHARED_MEMORY)


def _end_with_parent() -> None:
    """Exit when the parent has ended: torch's watchdog misses a parent killed while its workers start."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
