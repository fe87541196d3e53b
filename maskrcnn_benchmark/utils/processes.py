"""Run commands as separate processes and stop them together; how a process ended, in words."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.files import make_folder

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


_REASONS = {
    signal.SIGKILL: "most likely the system ran out of memory (`dmesg` tells)",
    signal.SIGBUS: "most likely shared memory (/dev/shm) or a disk is full",
    signal.SIGSEGV: "a fault of a native library",
    signal.SIGABRT: "a native library gave up",
    signal.SIGTERM: "somebody or the scheduler of the host stopped it",
}


def describe_end(status: int) -> str:
    """How a process ended and why, most likely: its exit status, or minus the number of a signal.

    A status above 128 is a shell's for a signal.
    """
    try:
        number = signal.Signals(status - 128 if status > 128 else -status)
    except ValueError:
        return f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
    reason = _REASONS.get(number)
    return f"was killed by {number.name}" + (f": {reason}" if reason else "")


class ProcessRunner:
    """Runs commands, from several threads if need be, and can stop all of them."""

    def __init__(self, threads: int = 1) -> None:
        """`threads`: numeric threads of each command."""
        self._environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str], output: Path) -> None:
        """Run a command to its end; its output goes to the file `output`.

        Raises:
            UsageError: when it fails, with its last line; or when `stop` was called before.
        """
        make_folder(output.parent)
        with self._lock, open(output, "wb") as file:
            if self._stopped:
                raise UsageError(f"{output.parent} was not started: all runs are being stopped")
            # a new session, so that Ctrl-C on the terminal reaches it only once, through `stop`
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True
            )
            self._running.add(process)
        try:
            status = process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
        if status:
            lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1] if lines else "it printed nothing"
            how = f"failed with status {status}" if status > 0 else f"{describe_end(status)}; its last line"
            raise UsageError(f"a run {how}: {last} (complete output: {output})")

    def stop(self) -> None:
        """Interrupt all running commands, as Ctrl-C would, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(signal.SIGINT)
