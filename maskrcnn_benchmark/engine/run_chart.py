"""The course of a training run as an image: its losses, and AP where it was tested in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.curves import LineChart, draw_charts

POSITIONS = 20
"""Most points of a curve of losses; each is the mean over its stretch of the run."""
SCORES = ("/AP", "/AP50")


def draw_run(folder: Path) -> Image.Image:
    """Curves of the run in `folder`. Raises DataError when it holds no metrics file or an empty one."""
    records = read_metrics(folder / METRICS_FILE)
    training = [r for r in records if r["kind"] == "train"]
    if not training:
        raise DataError(
            f"{folder / METRICS_FILE} is missing or holds no training record; name a run's folder"
        )
    charts = [_loss_chart(training)]
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    if evaluations:
        charts.append(_score_chart(evaluations))
    return draw_charts(charts)


def _loss_chart(records: Sequence[dict[str, Any]]) -> LineChart:
    """Means of every loss over stretches of equal length."""
    per_point = math.ceil(len(records) / POSITIONS)
    parts = [records[i : i + per_point] for i in range(0, len(records), per_point)]
    names = [name for name in records[0] if name.startswith("loss")]
    series = {name.removeprefix("loss_"): [_mean(part, name) for part in parts] for name in names}
    ticks = [str(part[-1]["iteration"]) for part in parts]
    return LineChart("losses", "iteration", "mean loss", ticks, series)


def _mean(records: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [r[name] for r in records if r.get(name) is not None]
    return sum(values) / len(values) if values else None


def _score_chart(records: Sequence[dict[str, Any]]) -> LineChart:
    """AP and AP50 of every task at every test."""
    names = [name for name in records[0] if name.endswith(SCORES)]
    series = {name: [r.get(name) for r in records] for name in names}
    return LineChart("tests", "iteration", "AP", [str(r["iteration"]) for r in records], series)
