"""Where the numbers of a training run go: ``metrics.jsonl`` and tensorboard event files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import append_jsonl, write_text

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics file; a last line that was cut off by a kill is left out.

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


class MetricsWriter:
    """Writes records of the main process; ``start_iteration`` > 0 cuts what a stopped run wrote after it.

    A record is one JSON object with ``kind`` "train" or "evaluation", ``iteration`` (updates done) and
    numbers; tensorboard gets the same numbers under ``<kind>/<name>``. NaN and infinity are written as null.
    ``evaluations`` holds the evaluation records that were kept, by iteration.
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
        self._tensorboard = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=start_iteration + 1)

    def write(self, kind: str, iteration: int, numbers: dict[str, float]) -> None:
        """Append one record."""
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        append_jsonl(self.path, {"kind": kind, "iteration": iteration, **finite})
        for name, value in finite.items():
            if value is not None:
                self._tensorboard.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        """Flush and close the event file."""
        self._tensorboard.close()
