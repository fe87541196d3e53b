"""Usage errors and the exit codes of command lines."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.utils.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    UsageError,
    run_cli,
)


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError, DeviceError, UsageError])
def test_usage_error_is_one_line_and_code_2(kind: type[UsageError], capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise kind("SOLVER.X is wrong")

    with pytest.raises(SystemExit) as stop:
        run_cli(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: SOLVER.X is wrong\n"


def test_interrupt_says_how_to_continue(capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_cli(main)
    assert stop.value.code == 130
    assert "same command again" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code(value: int | None, code: int) -> None:
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda: value)
    assert stop.value.code == code


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_cli(lambda: 1 // 0)
