"""Writers of training metrics: `metrics.jsonl` and tensorboard event files."""

from __future__ import annotations

import json
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
from maskrcnn_benchmark.utils.files import append_jsonl, make_folder, write_error, write_text

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line that was cut off by a kill is left out.

    Raises DataError for any other line that is no JSON object.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise DataError(f"{path}: line {number} is not valid JSON; move the file away") from None
    return records


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


class MetricsWriter:
    """Writer of metrics on rank 0; records after `start_iteration`, left by a stopped run, are dropped.

    A record is one JSON object with `kind` "train" or "evaluation", `iteration` (iterations done) and
    values; tensorboard gets the same values under `<kind>/<name>`. NaN and infinity are written as null.
    `evaluations` holds the evaluation records that were kept, by iteration.
    """

    def __init__(self, folder: Path, start_iteration: int) -> None:
        self.path = folder / METRICS_FILE
        kept = [r for r in read_metrics(self.path) if r["iteration"] <= start_iteration]
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
