"""Curves of a training run: its losses, and AP where it was tested in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.figure import TOTAL
from maskrcnn_benchmark.visualize.line_chart import LineChart, plot_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 20
"""Points of a loss curve at most; each is the mean over its part of the run."""
METRICS = ("/AP", "/AP50")
_SUM = "sum"


def plot_run(folder: Path) -> Figure:
    """Plot the curves of the run in `folder`.

    Raises:
        DataError: when it holds no metrics file, or one without a training record.
    """
    records = read_metrics(folder / METRICS_FILE)
    training = [r for r in records if r["kind"] == "train"]
    if not training:
        raise DataError(
            f"{folder / METRICS_FILE} is missing or holds no training record; name a run's folder"
        )
    charts = [_loss_chart(training)]
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    if evaluations:
        charts.append(_metric_chart(evaluations))
    return plot_lines(charts)


def _loss_chart(records: Sequence[dict[str, Any]]) -> LineChart:
    """Means of every loss, and of their sum, over parts of equal length."""
    per_point = math.ceil(len(records) / MAX_POINTS)
    parts = [records[i : i + per_point] for i in range(0, len(records), per_point)]
    series = {
        _SUM if name == "loss" else name.removeprefix("loss_"): [_mean(part, name) for part in parts]
        for name in records[0]
        if name.startswith("loss")
    }
    iterations = [float(part[-1]["iteration"]) for part in parts]
    return LineChart("Training losses", "iteration", "loss (mean)", iterations, series, {_SUM: TOTAL})


def _mean(records: Sequence[dict[str, Any]], name: str) -> float | None:
    """Mean of the values that are defined; None when there is none."""
    values = [r[name] for r in records if r.get(name) is not None]
    return sum(values) / len(values) if values else None


def _metric_chart(records: Sequence[dict[str, Any]]) -> LineChart:
    """AP and AP50 of every task at every test."""
    names = [name for name in records[0] if name.endswith(METRICS)]
    series = {name: [r.get(name) for r in records] for name in names}
    iterations = [float(r["iteration"]) for r in records]
    return LineChart("Tests during training", "iteration", "AP (0 to 1)", iterations, series)
