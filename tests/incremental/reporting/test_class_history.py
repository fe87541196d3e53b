"""AP of single classes over the phases, and the charts of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan
from maskrcnn_benchmark.incremental.reporting.charts import (
    ap_charts,
    bins_chart,
    group_names,
    history_chart,
    measure_chart,
    summary_charts,
)
from maskrcnn_benchmark.incremental.reporting.class_history import format_losses, read_class_history
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.class_chart import plot_classes
from maskrcnn_benchmark.visualize.figure import MEAN, TOTAL

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
    (axes,) = plot_classes(chart).axes
    assert axes.get_ylabel() == "segm AP (0 to 1)"


def entry(phase: int, bins: dict, forgetting: dict, mean: float | None, groups: dict) -> dict:
    """What a summary says about a phase."""
    bins = {f"instances {name}": value for name, value in bins.items()}
    values = {"bins": bins, "forgetting": forgetting, "mean_forgetting": mean, "groups": groups}
    return {"phase": phase, "tasks": {"segm": values | {"metrics": {"AP": 0.4}}}}


def test_charts_of_a_summary() -> None:
    phases = [
        entry(0, {"[10,100)": 0.5, "[100,1000)": 0.7}, {}, None, {"b0": 0.6}),
        entry(1, {"(0,10)": 0.1, "[10,100)": 0.4}, {"b0": 0.2}, 0.2, {"b0": 0.4, "t0": 0.3}),
        entry(2, {"(0,10)": 0.2}, {"b0": 0.3, "t0": 0.1}, 0.2, {"b0": 0.3, "t0": 0.2, "t1": 0.1}),
    ]
    summary = {"phases": phases}
    base, first, second = group_names(PLAN).values()
    assert (base, first, second) == ("base (2 classes)", "step 1 (1 class)", "step 2 (1 class)")
    (ap,) = ap_charts(summary, PLAN)
    assert list(ap.series) == [base, first, second, "all seen classes"]
    assert ap.series[first] == [None, 0.3, 0.2] and ap.x == ["0 (base)", "1", "2"]
    lost = measure_chart(summary, PLAN, "segm", "forgetting")
    assert list(lost.x) == ["1", "2"]
    assert lost.series == {base: [0.2, 0.3], first: [None, 0.1], "mean of the groups": [0.2, 0.2]}
    assert lost.styles == ap.styles
    assert [ap.styles[name] for name in (*ap.series, "mean of the groups")] == [0, 1, 2, TOTAL, MEAN]
    bins = bins_chart(summary, "segm")
    assert list(bins.series) == ["(0,10) instances", "[10,100) instances", "[100,1000) instances"]
    assert bins.series["(0,10) instances"] == [None, 0.1, 0.2] and bins.x[0] == "0 (base)"
    assert len(summary_charts(summary, PLAN)) == 2 and summary_charts({"phases": []}, PLAN) == []
    assert measure_chart({"phases": []}, PLAN, "segm", "forgetting").series == {}


def test_groups_of_a_report_are_named_like_phases() -> None:
    assert list(group_names(PLAN.with_report_sizes((3, 1))).values()) == [
        "base (3 classes)",
        "step 1 (1 class)",
    ]
