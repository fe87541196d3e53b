"""Tensorboard scalars of a run, one step per phase, written while the run is in progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskrcnn_benchmark.engine.writers import TENSORBOARD_FOLDER, EventFile
from maskrcnn_benchmark.incremental.reporting.summary import Summary, summary_rows


def write_events(summary: Summary, before: Summary | None, run_dir: Path) -> None:
    """Add the phases of `summary` that differ from those written before to `run_dir`/tensorboard.

    Tags are the columns of summary.csv, the step is the phase. A phase that is written again replaces its
    older values and those of all later phases.
    """
    rows = summary_rows(summary)
    old = {row["phase"]: row for row in summary_rows(before)} if before is not None else {}
    new = [row for row in rows if old.get(row["phase"]) != row]
    if not new:
        return
    first = new[0]["phase"]
    file = EventFile(run_dir / TENSORBOARD_FOLDER, first)
    try:
        for row in rows:
            if row["phase"] >= first:
                file.write(_scalars(row), row["phase"])
    finally:
        file.close()


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """The defined values except the phase."""
    return {name: value for name, value in row.items() if name != "phase" and value is not None}
