"""AP of every class after each phase of a run, and the classes that lost most."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import report_folder
from maskrcnn_benchmark.incremental.reporting.phase_report import CLASSES_FILE
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.table import format_table


@dataclass(frozen=True)
class ClassHistory:
    """AP of one class over the reported phases (None: undefined); `phase` is the one that added it."""

    label: int
    name: str
    group: str
    phase: int
    instances: int
    ap: dict[int, float | None]

    @property
    def first(self) -> float | None:
        """AP right after the phase that added the class."""
        return self.ap.get(self.phase)

    @property
    def last(self) -> float | None:
        """AP after the last reported phase."""
        return self.ap[max(self.ap)] if self.ap else None

    @property
    def lost(self) -> float | None:
        """`first` - `last`; None when either is undefined or no later phase is reported."""
        if self.first is None or self.last is None or max(self.ap) == self.phase:
            return None
        return self.first - self.last


def read_class_history(
    run_dir: Path, plan: PhasePlan, task: str, until: int | None = None
) -> list[ClassHistory]:
    """Read the history of each class of the reported phases, in label order, from per_class.csv files.

    Args:
        until: last phase to read (default: all).

    Raises:
        DataError: when a report has no AP of `task` ("bbox" or "segm").
    """
    ap: dict[int, dict[int, float | None]] = {}
    for phase in range(plan.num_phases if until is None else until + 1):
        path = report_folder(run_dir, phase) / CLASSES_FILE
        if not path.exists():
            continue
        for label, value in _read_column(path, task).items():
            ap.setdefault(label, {})[phase] = value
    phase_of = {label: phase for phase in range(plan.num_phases) for label in plan.new_labels(phase)}
    group = plan.group_of_category()
    return [
        ClassHistory(label, c.name, group[c.category_id], phase_of[label], c.instance_count, ap[label])
        for label, c in enumerate(plan.classes, start=1)
        if label in ap
    ]


def _read_column(path: Path, task: str) -> dict[int, float | None]:
    """AP of `task` by label from a per_class.csv; DataError when it has none or cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        if any(f"{task}_AP" not in row for row in rows):
            raise DataError(f"{path} has no column {task}_AP; give a task that was evaluated")
        return {int(row["label"]): float(v) if (v := row[f"{task}_AP"]) else None for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise DataError(
            f"{path} is no table of classes; delete it and give the training command again"
        ) from None


def format_losses(history: list[ClassHistory], rows: int = 8) -> str:
    """Format the (at most) `rows` classes that lost most AP since the phase that added them."""
    losing = sorted((h for h in history if h.lost is not None and h.lost > 0), key=lambda h: -(h.lost or 0.0))
    headers = ["label", "class", "group", "instances", "AP in its phase", "AP now", "lost"]
    table = [[h.label, h.name, h.group, h.instances, h.first, h.last, h.lost] for h in losing[:rows]]
    return format_table(headers, table) if losing else "no class has lost AP since its own phase"
