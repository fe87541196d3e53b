"""Start tools/train_net.py so that it can be killed, and read its progress from outside."""

from __future__ import annotations

import errno
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "train_net.py"


def preload() -> None:
    """Import the modules of the tool, and those that torch imports with the first optimizer."""
    importlib.import_module("maskrcnn_benchmark.incremental.pipeline.scheduler")
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Fault:
    """Fault that a run causes itself: `kind` at call `number` (from 1).

    "before" and "after": it is killed before or after a rename, where a file appears or replaces another.
    "full": the disk is full from an fsync on.
    """

    kind: str
    number: int

    def arm(self) -> None:
        """Install the fault in this process."""
        name = "fsync" if self.kind == "full" else "replace"
        original, calls = getattr(os, name), []

        def replacement(*args: Any, **kwargs: Any) -> None:
            calls.append(1)
            if len(calls) < self.number:
                original(*args, **kwargs)
                return
            if self.kind == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.kind == "after":
                original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, replacement)


class Forked:
    """The tool in a fork of this process, which has imported all modules: no start-up time."""

    def __init__(self, arguments: Sequence[str], output: Path, fault: Fault | None = None) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments, output, fault)

    def _run(self, arguments: Sequence[str], output: Path, fault: Fault | None) -> None:
        code = 70
        try:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            if fault is not None:
                fault.arm()
            sys.argv = [str(TOOL), *arguments]
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """Exit status once the process has ended (negative: number of the signal that killed it)."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def kill(self) -> None:
        """Send SIGKILL to this process alone and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Command:
    """The tool as a user starts it."""

    def __init__(self, arguments: Sequence[str], output: Path) -> None:
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with open(output, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(TOOL), *arguments],
                env={**os.environ, "PYTHONPATH": paths},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Exit status once the process has ended."""
        return self._process.poll()

    def kill(self) -> None:
        """Send SIGKILL to this process alone and wait for its end."""
        self._process.kill()
        self._process.wait()


def stages(run: Path) -> dict[str, bool]:
    """Stages begun so far, in order -> whether each is finished."""
    try:
        records = json.loads((run / "state.json").read_text())["stages"]
    except FileNotFoundError:
        return {}
    return {key: bool(record["finished"]) for key, record in records.items()}


def stage_now(run: Path) -> str:
    """Stage in progress; "start" before the first, "between" where none is."""
    known = stages(run)
    return next((key for key, done in known.items() if not done), "between" if known else "start")


def saved_iterations(run: Path) -> dict[str, int]:
    """Phase folder -> iteration from which it resumes; -1 with the final checkpoint."""
    found = {}
    for note in run.glob("phase_*/last_checkpoint"):
        number = note.read_text().strip().removeprefix("model_").removesuffix(".pth")
        found[note.parent.name] = -1 if number == "final" else int(number)
    return found


def children(pid: int) -> list[int]:
    """Running child processes of `pid`."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def wait_for_end(pids: Sequence[int], seconds: float) -> list[int]:
    """Processes of `pids` that still run after `seconds`."""
    end = time.monotonic() + seconds
    alive = list(pids)
    while alive and time.monotonic() < end:
        alive = [pid for pid in alive if _runs(pid)]
        time.sleep(0.05)
    return alive


def _runs(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
