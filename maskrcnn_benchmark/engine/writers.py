"""Writers of training metrics: `metrics.jsonl` and tensorboard event files."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import append_jsonl, make_folder, set_aside, write_error, write_text

_LOG = logging.getLogger(__name__)
METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line that was cut off by a kill is left out.

    Raises DataError for any other line that is no record, and for what is no file.
    """
    records = _read_records(path)
    for number, record in enumerate(records, 1):
        if record is None and number < len(records):
            raise DataError(f"{path}: line {number} is no record of a metrics file; move the file away")
    return [record for record in records if record is not None]


def salvage_metrics(damaged: Path, path: Path) -> int:
    """Write the records of a damaged metrics file that can be read to `path`; returns how many there are."""
    try:
        records = [record for record in _read_records(damaged) if record is not None]
    except DataError:
        records = []
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    return len(records)


def _read_records(path: Path) -> list[dict[str, Any] | None]:
    """Record of every line, None for a line that holds none; DataError when the file cannot be read."""
    if not path.exists():
        return []
    if not path.is_file():
        raise DataError(f"{path} is no file; move it away")
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; move it away") from None
    return [_record(line) for line in lines]


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line of a metrics file, None when it holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    return record if type(record.get("iteration")) is int else None


class TensorboardWriter:
    """Writer of a tensorboard event file, which purges earlier events from `first_step` on.

    The calling thread writes and flushes every record: a background thread, as tensorboard's writers have it,
    would lose records when the process is killed and never return when the disk is full.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        make_folder(folder)
        # a restart within the same second must not write over the file before it
        self._path = folder / "events"
        with self._naming_the_file():
            self._file = EventsWriter(str(self._path), f".{first_step:07d}.{os.getpid()}")
            start = Event(wall_time=time.time(), step=first_step)
            start.session_log.status = SessionLog.START
            self._file.write_event(start)
            self._file.flush()

    def write(self, values: dict[str, float], step: int) -> None:
        """Append scalars by tag."""
        event = Event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.extend(scalar(tag, value).value)
        with self._naming_the_file():
            self._file.write_event(event)
            self._file.flush()

    def close(self) -> None:
        """Close the file; all records are flushed already."""
        try:
            self._file.close()
        except OSError:  # after a failed write, closing fails once more; the write raised it
            return

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        """Turn the error of a write into a WriteError."""
        try:
            yield
        except OSError as error:
            raise write_error(self._path, error) from None


def _resumed_records(path: Path) -> list[dict[str, Any]]:
    """Records of a run that resumes; a damaged file is renamed, and what can be read of it is kept."""
    try:
        return read_metrics(path)
    except DataError as error:
        damaged = set_aside(path)
        kept = salvage_metrics(damaged, path)
        _LOG.warning("%s: it is kept as %s, and its %d readable records stay", error, damaged.name, kept)
        return read_metrics(path)


class MetricsWriter:
    """Writer of metrics on rank 0; records after `start_iteration`, left by a stopped run, are dropped.

    A record is one JSON object with `kind` "train" or "evaluation", `iteration` (iterations done) and
    values; tensorboard gets the same values under `<kind>/<name>`. NaN and infinity are written as null.
    `evaluations` holds the evaluation records that were kept, by iteration.
    """

    def __init__(self, folder: Path, start_iteration: int) -> None:
        self.path = folder / METRICS_FILE
        kept = [r for r in _resumed_records(self.path) if r["iteration"] <= start_iteration]
        if start_iteration == 0:
            kept = []
        self.evaluations = {
            r["iteration"]: {k: v for k, v in r.items() if k not in ("kind", "iteration")}
            for r in kept
            if r["kind"] == "evaluation"
        }
        write_text(self.path, "".join(json.dumps(r) + "\n" for r in kept))
        self._tensorboard = TensorboardWriter(folder / TENSORBOARD_FOLDER, start_iteration + 1)

    def write(self, kind: str, iteration: int, values: dict[str, float]) -> None:
        """Append one record; WriteError when the disk does not take it."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        append_jsonl(self.path, {"kind": kind, "iteration": iteration, **finite})
        known = {f"{kind}/{name}": value for name, value in finite.items() if value is not None}
        self._tensorboard.write(known, iteration)

    def close(self) -> None:
        """Close the event file."""
        self._tensorboard.close()
