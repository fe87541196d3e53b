"""What became of the other ranks, when the connection to one of them is lost."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

from maskrcnn_benchmark.utils.errors import ProcessError, UsageError

PATIENCE_SECONDS = 5.0
_FOLLOWED = "-"  # note of a rank that only stopped because of another one, or was interrupted
_NOTE_LENGTH = 500
_POLL_SECONDS = 0.1
_LOST = re.compile(
    r"Connection (?:closed|reset|refused)|Broken pipe|Socket closed|timed? ?out|caused pair closure"
    r"|communicator was aborted|remote process exited|Watchdog caught",
    re.IGNORECASE,
)
_GROUP = re.compile(r"gloo|nccl|c10d|TCPStore|ProcessGroup|rank|pair\.cc", re.IGNORECASE)


class RankWatch:
    """Context manager around the work of a rank: a lost connection becomes one line that names the lost rank.

    Every rank leaves host and process id in the store of the run, and its error when it stops with one.
    Inside, an error of the process group is replaced by a ProcessError that says which rank stopped and why,
    as far as store and process table tell.
    """

    def __init__(self, store: dist.Store, rank: int, world: int) -> None:
        """Exchange host and process id with all ranks; collective."""
        self._store, self._rank, self._others = store, rank, [r for r in range(world) if r != rank]
        store.set(f"process/{rank}", f"{os.getpid()} {socket.gethostname()}")
        found = [store.get(f"process/{other}").decode().split(maxsplit=1) for other in self._others]
        self._processes = {
            other: (int(pid), host) for other, (pid, host) in zip(self._others, found, strict=True)
        }

    def __enter__(self) -> RankWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RuntimeError) and _is_lost_connection(error):
            lost = ProcessError(
                f"rank {self._rank} stops: {self._why()}; the same command resumes from the last checkpoint"
            )
            self._leave_note(_FOLLOWED)
            raise lost from None
        if isinstance(error, UsageError):
            self._leave_note(str(error))
        elif isinstance(error, Exception):
            self._leave_note(f"{type(error).__name__}: {error}")
        elif error is not None:
            self._leave_note(_FOLLOWED)

    def _leave_note(self, text: str) -> None:
        """Tell the other ranks why this one stops."""
        try:
            self._store.set(f"end/{self._rank}", text.strip().partition("\n")[0][:_NOTE_LENGTH])
        except RuntimeError:
            return  # the process that holds the store is gone

    def _why(self) -> str:
        """Which rank is gone, and why; waits a little for what tells it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            notes = {rank: self._note(rank) for rank in self._others}
            for rank, note in notes.items():
                if note and note != _FOLLOWED:
                    return f"rank {rank} has stopped ({note})"
            gone = [rank for rank, note in notes.items() if not note and self._is_gone(rank)]
            if gone:
                ranks = ", ".join(f"rank {rank} (process id {self._processes[rank][0]})" for rank in gone)
                return f"{ranks} was killed: most likely the system ran out of memory (`dmesg` tells)"
            if time.monotonic() > end:
                break
            time.sleep(_POLL_SECONDS)
        hosts = sorted({host for _, host in self._processes.values()} - {socket.gethostname()})
        where = f" (other hosts: {', '.join(hosts)}; their logs tell)" if hosts else ""
        return f"the connection to another rank was lost or timed out{where}"

    def _note(self, rank: int) -> str:
        """The line that a rank has left; "" for none."""
        key = f"end/{rank}"
        try:
            return self._store.get(key).decode() if self._store.check([key]) else ""
        except RuntimeError:
            return ""

    def _is_gone(self, rank: int) -> bool:
        """Whether the process of a rank on this host has ended."""
        pid, host = self._processes[rank]
        if host != socket.gethostname():
            return False
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return not _exists(pid)
        except OSError:
            return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error of torch says that another rank cannot be reached any more."""
    text = str(error)
    return bool(_LOST.search(text)) and (isinstance(error, dist.DistError) or bool(_GROUP.search(text)))
