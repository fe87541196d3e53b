"""Run cases in child processes of bounded memory and time; a child that dies is attributed to its case."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import selectors
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from maskrcnn_benchmark.utils.errors import UsageError

LIMIT_SECONDS = 10.0
GRACE = 1.5  # times the limit, after which native code, which no signal handler interrupts, is killed
MEMORY = 2 << 30  # on top of what the process has when it starts
MAX_MESSAGE = 2000
CHUNK = 100
FAULTS = ("crash", "hang", "traceback", "memory", "untidy", "silent", "late")
CLASSES = ("accepted", "refused", *FAULTS)


class Kind(Protocol):
    """One kind of input: makes damaged ones, and reads them as the project does."""

    name: str

    def prepare(self, folder: Path) -> None:
        """Make the undamaged inputs, once."""

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Write a damaged input into `folder` and return the function that reads it."""


class SilentDifference(Exception):
    """A damaged input was accepted, and gives other values than the undamaged one."""


class LateRefusal(Exception):
    """An input was accepted when it was opened and refused when it was used."""


class _TimeLimit(BaseException):
    """The case took too long."""


@dataclass(frozen=True)
class Result:
    """Outcome of one case; `signature` is equal for faults of one cause."""

    kind: str
    index: int
    outcome: str
    message: str = ""
    signature: str = ""


def run_case(kind: Kind, seed: int, index: int, folder: Path, limit: float = LIMIT_SECONDS) -> Result:
    """Make and read one case in this process."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    check = kind.case(random.Random(f"{seed}/{kind.name}/{index}"), folder)
    signal.signal(signal.SIGALRM, _raise_limit)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        check()
        outcome, message, signature = "accepted", "", ""
    except UsageError as error:
        message = str(error)
        tidy = "\n" not in message and len(message) <= MAX_MESSAGE
        outcome = "refused" if tidy else "untidy"
        signature = "" if tidy else _place(error)
    except SilentDifference as error:
        outcome, message, signature = "silent", str(error), str(error)
    except LateRefusal as error:
        outcome, message, signature = "late", str(error), _place(error.__cause__ or error)
    except MemoryError as error:
        outcome, message, signature = "memory", _last_lines(error), _place(error)
    except _TimeLimit as error:
        outcome, message, signature = "hang", _last_lines(error), _place(error)
    except Exception as error:
        outcome, message, signature = "traceback", _last_lines(error), _place(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Result(kind.name, index, outcome, message[:4000], signature)


def _place(error: BaseException) -> str:
    """Type of an error and the last line of the package that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "maskrcnn_benchmark" in f.filename] or frames
    where = f"{ours[-1].filename.rpartition('maskrcnn_benchmark/')[2]}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {where}"


def _last_lines(error: BaseException) -> str:
    """The end of a traceback, without values of any length."""
    lines = traceback.format_tb(error.__traceback__)[-6:]
    try:
        text = str(error)[:500]
    except Exception:
        text = "(its text cannot be made)"
    return "".join(lines) + f"{type(error).__name__}: {text}"


def run_cases(
    kinds: Sequence[tuple[Kind, int]], seed: int, jobs: int, out: Path, limit: float = LIMIT_SECONDS
) -> Iterator[Result]:
    """Yield the results of `count` cases per kind; inputs of faults are copied below `out`/faults."""
    chunks = [
        (kind, start, min(count, start + CHUNK)) for kind, count in kinds for start in range(0, count, CHUNK)
    ]
    chunks.reverse()
    free = list(range(jobs))
    with selectors.DefaultSelector() as selector:
        children: dict[int, _Child] = {}
        while chunks or children:
            while chunks and free:
                slot = free.pop()
                child = _Child(*chunks.pop(), seed, out / "work" / f"job_{slot}", slot, limit)
                children[child.pipe] = child
                selector.register(child.pipe, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(timeout=0.2)}
            for pipe, child in list(children.items()):
                results, ended = child.poll(pipe in ready)
                for result in results:
                    if result.outcome in FAULTS:
                        child.save(result, out / "faults")
                    yield result
                if ended:
                    selector.unregister(pipe)
                    os.close(pipe)
                    del children[pipe]
                    free.append(child.slot)
                    if child.at + 1 < child.stop:  # it died: the rest of its chunk is for another one
                        chunks.append((child.kind, child.at + 1, child.stop))


class _Child:
    """A forked process that runs the cases `start` to `stop` of a kind and reports through a pipe."""

    def __init__(
        self, kind: Kind, start: int, stop: int, seed: int, folder: Path, slot: int, limit: float
    ) -> None:
        self.kind, self.stop, self.slot, self.folder, self._limit = kind, stop, slot, folder, limit
        self.at = start
        self._since = time.monotonic()
        self._buffer = b""
        folder.mkdir(parents=True, exist_ok=True)
        self.pipe, write = os.pipe()
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self.pipe)
            _serve(kind, range(start, stop), seed, folder, write, limit)
        os.close(write)
        os.set_blocking(self.pipe, False)

    def poll(self, ready: bool) -> tuple[list[Result], bool]:
        """Results since the last call, and whether the process has ended."""
        results: list[Result] = []
        ended = False
        if ready:
            data = os.read(self.pipe, 1 << 20)
            ended = not data
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            for line in lines:
                content: Any = json.loads(line)
                self._since = time.monotonic()
                if isinstance(content, int):
                    self.at = content
                else:
                    results.append(Result(**content))
        done = self.at + 1 == self.stop and any(r.index == self.at for r in results)
        if not ended and not done and time.monotonic() - self._since > GRACE * self._limit:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            results.append(Result(self.kind.name, self.at, "hang", self._stderr(), "in native code"))
            return results, True
        if ended:
            status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            if status != 0:
                name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
                results.append(Result(self.kind.name, self.at, "crash", f"{name}\n{self._stderr()}", name))
        return results, ended

    def save(self, result: Result, keep: Path) -> None:
        """Copy the input of a fault; later cases may have replaced it, so it is made again if need be."""
        target = keep / f"{result.kind}-{result.index}"
        shutil.rmtree(target, ignore_errors=True)
        kept = self.folder / f"fault_{result.index}"
        source = kept if kept.is_dir() else self.folder / "case"
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_no_pipes)
        target.mkdir(parents=True, exist_ok=True)
        (target / "FAULT.txt").write_text(f"{result.outcome}\n{result.message}\n", errors="backslashreplace")
        shutil.rmtree(kept, ignore_errors=True)

    def _stderr(self) -> str:
        path = self.folder / "stderr"
        return path.read_text(errors="replace")[-3000:] if path.is_file() else ""


def _no_pipes(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if not os.path.isfile(p := os.path.join(folder, name)) and not os.path.isdir(p)
    ]


def _serve(kind: Kind, indices: range, seed: int, folder: Path, pipe: int, limit: float) -> None:
    """What a child does: limits, then one case after another; never returns."""
    status = 1
    try:
        handle = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 2)
        os.dup2(handle, 1)
        faulthandler.enable(handle)
        limit_memory(MEMORY)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for index in indices:
            os.write(pipe, b"%d\n" % index)
            result = run_case(kind, seed, index, folder / "case", limit)
            if result.outcome in FAULTS:
                os.rename(folder / "case", folder / f"fault_{index}")
            os.write(pipe, json.dumps(vars(result)).encode() + b"\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def limit_memory(extra: int) -> None:
    """Limit the address space to what this process has and `extra` bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    total = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (total, total))


def _raise_limit(number: int, frame: Any) -> None:
    raise _TimeLimit
