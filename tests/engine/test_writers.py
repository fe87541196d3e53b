"""metrics.jsonl: appended, cut at a resume, robust against a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from maskrcnn_benchmark.engine.writers import METRICS_FILE, TENSORBOARD_FOLDER, MetricsWriter, read_metrics
from maskrcnn_benchmark.utils.errors import DataError


def _fill(folder: Path, start: int, stop: int) -> None:
    writer = MetricsWriter(folder, start)
    for iteration in range(start + 1, stop + 1):
        writer.write("train", iteration, {"loss": 1.0 / iteration})
    writer.write("evaluation", stop, {"segm/AP": 0.5, "bad": math.nan})
    writer.close()


def test_records_and_event_files(tmp_path: Path) -> None:
    _fill(tmp_path, 0, 2)
    assert read_metrics(tmp_path / METRICS_FILE) == [
        {"kind": "train", "iteration": 1, "loss": 1.0},
        {"kind": "train", "iteration": 2, "loss": 0.5},
        {"kind": "evaluation", "iteration": 2, "segm/AP": 0.5, "bad": None},
    ]
    assert list((tmp_path / TENSORBOARD_FOLDER).iterdir())


def test_resume_cuts_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    _fill(tmp_path, 0, 4)
    writer = MetricsWriter(tmp_path, 3)
    assert writer.evaluations == {}
    writer.close()
    assert [r["iteration"] for r in read_metrics(tmp_path / METRICS_FILE)] == [1, 2, 3]
    _fill(tmp_path, 3, 4)
    writer = MetricsWriter(tmp_path, 4)
    assert writer.evaluations == {4: {"segm/AP": 0.5, "bad": None}}
    writer.close()
    assert [r["iteration"] for r in read_metrics(tmp_path / METRICS_FILE)] == [1, 2, 3, 4, 4]


def test_a_fresh_run_starts_an_empty_file(tmp_path: Path) -> None:
    _fill(tmp_path, 0, 2)
    MetricsWriter(tmp_path, 0).close()
    assert read_metrics(tmp_path / METRICS_FILE) == []


def test_a_line_cut_by_a_kill_is_dropped_and_a_bad_one_named(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    good = json.dumps({"kind": "train", "iteration": 1})
    path.write_text(good + '\n{"kind": "tr')
    assert len(read_metrics(path)) == 1
    MetricsWriter(tmp_path, 1).close()
    assert path.read_text() == good + "\n"
    path.write_text("oops\n" + good + "\n")
    with pytest.raises(DataError, match="line 1"):
        read_metrics(path)


@pytest.mark.parametrize(
    "damage", [b"oops\n", b"\xff\xfe\n", b"[1]\n", b'{"iteration": 1}\n', b"9" * 5000 + b"\n"]
)
def test_a_damaged_file_is_kept_aside_and_its_records_stay(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _fill(tmp_path, 0, 3)
    path = tmp_path / METRICS_FILE
    expected, damaged = read_metrics(path), damage + path.read_bytes()
    path.write_bytes(damaged)
    MetricsWriter(tmp_path, 3).close()
    assert read_metrics(path) == expected
    assert path.with_name("metrics.jsonl.damaged").read_bytes() == damaged
    assert caplog.text.count("\n") == 1 and "line 1 is no record" in caplog.text


def test_a_folder_in_its_place_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).mkdir()
    MetricsWriter(tmp_path, 3).close()
    assert read_metrics(tmp_path / METRICS_FILE) == []
    assert (tmp_path / "metrics.jsonl.damaged").is_dir()
