"""Commands in parallel: output, failures, stopping."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.processes import ProcessRunner, describe_end

# A process that was started in the background inherits that interrupts are ignored.
WAIT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("saved", flush=True)
    sys.exit(130)
"""


def test_output_threads_and_failure(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out.txt"
    ProcessRunner(threads=3).run(
        [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"], output
    )
    assert output.read_text() == "3\n"
    with pytest.raises(UsageError, match=r"status 4: no room \(complete output: .*out.txt\)"):
        ProcessRunner().run([sys.executable, "-c", "print('a\\nno room'); raise SystemExit(4)"], output)


def test_a_killed_command_and_other_ends(tmp_path: Path) -> None:
    kill = "import os; print('working', flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(UsageError, match=r"killed by SIGKILL: .*out of memory.*; its last line: working \("):
        ProcessRunner().run([sys.executable, "-c", kill], tmp_path / "out.txt")
    assert describe_end(3) == "ended with status 3" and describe_end(0) == "ended with status 0"
    assert "SIGKILL" in describe_end(137) and "SIGTERM" in describe_end(-15)
    assert describe_end(-250) == "was killed by signal 250" and describe_end(255) == "ended with status 255"


def test_stop_interrupts_and_begins_no_more(tmp_path: Path) -> None:
    runner, output, errors = ProcessRunner(), tmp_path / "out.txt", []

    def run() -> None:
        try:
            runner.run([sys.executable, "-c", WAIT], output)
        except UsageError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while not (output.is_file() and "ready" in output.read_text()):
        time.sleep(0.02)
    runner.stop()
    thread.join(timeout=300)
    assert len(errors) == 1 and "status 130: saved" in errors[0]
    with pytest.raises(UsageError, match="are being stopped"):
        runner.run([sys.executable, "-c", ""], output)
