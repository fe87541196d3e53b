"""AP of single classes over the phases, and the charts of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan
from maskrcnn_benchmark.incremental.reporting.charts import bins_chart, forgetting_chart, history_chart
from maskrcnn_benchmark.incremental.reporting.class_history import format_losses, read_class_history
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.class_chart import draw_class_chart

PLAN = PhasePlan(tuple(ClassInfo(i, f"c{i}", "", 9 - i, 3, 9 - i, 3) for i in range(4)), (2, 1, 1))
AP = {0: [0.5, ""], 1: [0.4, 0.3, 0.2]}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that has reported the base and step 1; c1 is undefined after the base."""
    for phase, values in AP.items():
        folder = tmp_path / f"phase_{phase}" / "report"
        folder.mkdir(parents=True)
        rows = [f"{i + 1},{value}" for i, value in enumerate(values)]
        (folder / "per_class.csv").write_text("\n".join(["label,segm_AP", *rows, ""]))
    return tmp_path


def test_history_of_classes(run_dir: Path) -> None:
    history = read_class_history(run_dir, PLAN, "segm")
    assert [(h.label, h.phase, h.group, h.instances) for h in history] == [
        (1, 0, "b0", 9),
        (2, 0, "b0", 8),
        (3, 1, "t0", 7),
    ]
    assert [h.first for h in history] == [0.5, None, 0.2]
    assert [h.last for h in history] == [0.4, 0.3, 0.2]
    assert [h.lost for h in history] == [pytest.approx(0.1), None, None]
    with pytest.raises(DataError, match="bbox_AP"):
        read_class_history(run_dir, PLAN, "bbox")


def test_table_of_losses(run_dir: Path) -> None:
    history = read_class_history(run_dir, PLAN, "segm")
    assert [line.split()[1] for line in format_losses(history).splitlines()[2:]] == ["c0"]
    assert format_losses(history[1:]) == format_losses([]) == "no class has lost AP since its own phase"


def test_chart_of_classes(run_dir: Path) -> None:
    chart = history_chart(read_class_history(run_dir, PLAN, "segm"), PLAN, "segm")
    assert chart.groups == {"base": 2, "step 1": 1} and len(chart.names) == 3
    assert draw_class_chart(chart).width == 980


def test_charts_of_a_summary() -> None:
    def entry(phase: int, bins: dict, forgetting: dict, mean: float | None) -> dict:
        values = {"bins": bins, "forgetting": forgetting, "mean_forgetting": mean}
        return {"phase": phase, "tasks": {"segm": values}}

    phases = [
        entry(0, {"instances [10,100)": 0.5, "instances [100,1000)": 0.7}, {}, None),
        entry(1, {"instances (0,10)": 0.1, "instances [10,100)": 0.4}, {"b0": 0.2}, 0.2),
        entry(2, {"instances (0,10)": 0.2}, {"b0": 0.3, "t0": 0.1}, 0.2),
    ]
    lost = forgetting_chart({"phases": phases}, "segm")
    assert list(lost.x_ticks) == ["1", "2"]
    assert lost.series == {"b0": [0.2, 0.3], "t0": [None, 0.1], "mean": [0.2, 0.2]}
    bins = bins_chart({"phases": phases}, "segm")
    assert list(bins.series) == ["(0,10)", "[10,100)", "[100,1000)"]
    assert bins.series["(0,10)"] == [None, 0.1, 0.2] and bins.x_ticks[0] == "0 (base)"
    assert forgetting_chart({"phases": []}, "segm").series == {}
