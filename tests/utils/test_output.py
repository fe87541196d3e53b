"""utils.logger, meters, progress and table: what a run prints."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.logger import NAME, setup_logger
from maskrcnn_benchmark.utils.meters import MetricLogger
from maskrcnn_benchmark.utils.progress import Progress, format_eta
from maskrcnn_benchmark.utils.table import format_table


@pytest.fixture(autouse=True)
def _restore_logger() -> Iterator[None]:
    logger = logging.getLogger(NAME)
    state = logger.handlers[:], logger.propagate, logger.level
    yield
    for handler in logger.handlers:
        if handler not in state[0]:
            handler.close()
    logger.handlers[:], logger.propagate = state[0], state[1]
    logger.setLevel(state[2])


def test_log_goes_to_stdout_and_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    setup_logger(str(tmp_path / "run"), rank=0)
    logging.getLogger(f"{NAME}.engine.train").info("hello %d", 3)
    assert "hello 3" in capsys.readouterr().out
    assert "hello 3" in (tmp_path / "run" / "log.txt").read_text()


def test_second_setup_replaces_the_first(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("a", "b"):
        logger = setup_logger(str(tmp_path / name), rank=0)
    logger.info("once")
    assert capsys.readouterr().out.count("once") == 1
    assert (tmp_path / "a" / "log.txt").read_text() == ""


def test_other_ranks_only_warn_and_write_no_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    logger = setup_logger(str(tmp_path), rank=1)
    logger.info("quiet")
    logger.warning("loud")
    out = capsys.readouterr().out
    assert "quiet" not in out and "[rank 1]" in out
    assert not (tmp_path / "log.txt").exists()


def test_log_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file cannot be made"):
        setup_logger(str(tmp_path / "file"), rank=0)


def test_meters_use_a_window_and_keep_the_average() -> None:
    meters = MetricLogger(window=3)
    assert meters.medians() == {}
    for value in (100.0, 1.0, 2.0, 3.0):
        meters.update(loss=torch.tensor(value, requires_grad=True), time=value)
    assert meters.medians() == {"loss": 2.0, "time": 2.0}
    assert meters.averages()["loss"] == pytest.approx(26.5)
    assert "loss: 2.0000 (26.5000)" in str(meters)


def test_meters_resume_from_their_state() -> None:
    first = MetricLogger(window=3)
    for value in (5.0, 1.0, 2.0, 3.0):
        first.update(loss=value)
    second = MetricLogger(window=2)
    second.load_state_dict(first.state_dict())
    assert second.medians() == {"loss": 2.0} and second.averages() == first.averages()


def test_meters_of_a_fresh_window() -> None:
    meters = MetricLogger(window=4)
    meters.update(x=1)
    meters.update(x=float("nan"))
    assert math.isnan(meters.averages()["x"])


def test_progress_lines(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    logger = logging.getLogger("test.progress")
    with caplog.at_level(logging.INFO, logger="test.progress"):
        progress = Progress(500, "training", logger, 10, start=100, clock=lambda: now[0])
        for _ in range(23):
            now[0] += 0.5
            progress.update()
        assert [r.getMessage() for r in caplog.records] == [
            "training: 120/500 (24.0 %), 0.5 s each, ETA 0:03:10"
        ]
        now[0] += 1
        progress.update(377, extra="done")
    assert caplog.messages[-1].startswith("training: 500/500 (100.0 %)")
    assert caplog.messages[-1].endswith("ETA 0:00:00, done")


class _Terminal(io.StringIO):
    """Standard error of somebody who watches."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    logger = setup_logger(None, rank=0)
    progress = Progress(4, "testing", logger, start=1)
    for _ in range(2):
        progress.update()
    logger.info("in between")
    progress.update()
    assert "testing:  25%" in terminal.getvalue() and "1/4" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")  # the bar is gone
    lines = capsys.readouterr().out.splitlines()
    assert [line[9:] for line in lines][0] == "I in between"
    assert len(lines) == 2 and "testing: 4/4 (100.0 %)" in lines[1]


def test_no_bar_for_loops_of_messages_nor_on_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    Progress(4, "files", setup_logger(None, rank=0), period_seconds=0.0).update(extra="a.json")
    Progress(4, "testing", setup_logger(None, rank=1)).update()
    stopped = Progress(None, "camera", setup_logger(None, rank=0))
    stopped.close()
    assert "files" not in terminal.getvalue() and "testing" not in terminal.getvalue()
    assert "camera: 0it" in terminal.getvalue() and terminal.getvalue().endswith("\r")


def test_progress_of_nothing() -> None:
    progress = Progress(0, "nothing", logging.getLogger("test.progress"))
    assert progress.seconds_each == 0 and progress.eta_seconds == 0
    progress.update(0)


def test_eta_with_days() -> None:
    assert format_eta(90061) == "1 day, 1:01:01"
    assert format_eta(-5) == "0:00:00"


def test_table_aligns_numbers_right_and_text_left() -> None:
    text = format_table(["name", "AP", "n"], [["cat", 0.5, 1], ["longer", None, 200], ["x", 0.1234, 3]])
    assert text.splitlines() == [
        "name       AP    n",
        "------  -----  ---",
        "cat     0.500    1",
        "longer      -  200",
        "x       0.123    3",
    ]


def test_table_edges() -> None:
    assert format_table(["a", "b"], []).splitlines()[0] == "a  b"
    assert "nan" in format_table(["a"], [[float("nan")]])
    assert format_table(["a"], [[1.0]]).splitlines()[-1] == "1.0"
    with pytest.raises(ValueError, match="row 0 has 1 cells for 2 headers"):
        format_table(["a", "b"], [[1]])
