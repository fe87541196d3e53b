"""Charts of a run: AP of class groups, forgetting, instance-count bins, single classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.tables import phase_bands
from maskrcnn_benchmark.incremental.reporting.class_history import ClassHistory
from maskrcnn_benchmark.visualize.class_chart import ClassChart
from maskrcnn_benchmark.visualize.figure import MEAN, TOTAL
from maskrcnn_benchmark.visualize.line_chart import LineChart

MEASURES = {
    "forgetting": "AP that class groups lost since their phase",
    "intransigence": "AP that class groups lack to the reference",
}
"""Measures per class group in addition to its AP, and their titles in charts."""
_ALL, _MEAN = "all seen classes", "mean of the groups"


def summary_charts(summary: Mapping[str, Any], plan: PhasePlan) -> list[LineChart]:
    """Charts of a summary (see `build_summary`): AP, forgetting and intransigence, a chart per task of each.

    Measures that no phase has are left out.
    """
    charts = ap_charts(summary, plan)
    for measure in MEASURES:
        row = [measure_chart(summary, plan, task, measure) for task in summary_tasks(summary)]
        if any(chart.series for chart in row):
            charts += row
    return charts


def summary_tasks(summary: Mapping[str, Any]) -> list[str]:
    """Tasks that any phase has reported."""
    return list(dict.fromkeys(task for entry in summary["phases"] for task in entry["tasks"]))


def ap_charts(summary: Mapping[str, Any], plan: PhasePlan) -> list[LineChart]:
    """AP of every class group, and of all seen classes, after every phase; one chart per task."""
    charts = []
    names = group_names(plan)
    for task in summary_tasks(summary):
        present = [(e["phase"], e["tasks"][task]) for e in summary["phases"] if task in e["tasks"]]
        last = max(phase for phase, _ in present)
        series: dict[str, list[float | None]] = {
            names[group]: [values["groups"].get(group) for _, values in present]
            for group in plan.groups(last)
        }
        series[_ALL] = [values["metrics"].get("AP") for _, values in present]
        title, ticks = f"{task} AP of every class group", phase_ticks(phase for phase, _ in present)
        charts.append(LineChart(title, "after phase", _ap_axis(task), ticks, series, _group_styles(plan)))
    return charts


def measure_chart(summary: Mapping[str, Any], plan: PhasePlan, task: str, measure: str) -> LineChart:
    """Forgetting or intransigence of every class group after each phase that has it, and their mean."""
    entries = [e for e in summary["phases"] if e["tasks"].get(task, {}).get(measure)]
    values = [entry["tasks"][task] for entry in entries]
    names = group_names(plan)
    series: dict[str, list[float | None]] = {
        names[group]: [v[measure].get(group) for v in values]
        for group in dict.fromkeys(group for v in values for group in v[measure])
    }
    if series:
        series[_MEAN] = [v[f"mean_{measure}"] for v in values]
    title, y_label = f"{task} {MEASURES[measure]}", f"difference of {task} AP"
    ticks = phase_ticks(e["phase"] for e in entries)
    return LineChart(title, "after phase", y_label, ticks, series, _group_styles(plan))


def bins_chart(summary: Mapping[str, Any], task: str) -> LineChart:
    """AP of the seen classes of every instance-count bin after each phase."""
    entries = [entry for entry in summary["phases"] if task in entry["tasks"]]
    values = [entry["tasks"][task]["bins"] for entry in entries]
    names = sorted({name for v in values for name in v}, key=_lower_edge)
    series = {f"{name.removeprefix('instances ')} instances": [v.get(name) for v in values] for name in names}
    title = f"{task} AP by training instances of a class"
    return LineChart(title, "after phase", _ap_axis(task), phase_ticks(e["phase"] for e in entries), series)


def history_chart(history: Sequence[ClassHistory], plan: PhasePlan, task: str) -> ClassChart:
    """AP of every class right after its own phase and after the last one."""
    return ClassChart(
        f"{task} AP of every class",
        _ap_axis(task),
        {
            "after its own phase": [h.first for h in history],
            "after the last phase": [h.last for h in history],
        },
        phase_bands(plan, len(history)),
        names=[h.name for h in history],
    )


def phase_ticks(phases: Iterable[int]) -> list[str]:
    """Names of phases on an axis."""
    return ["0 (base)" if phase == 0 else str(phase) for phase in phases]


def group_names(plan: PhasePlan) -> dict[str, str]:
    """Names of the class groups b0, t0, ... for people: "base (12 classes)", "step 1 (6 classes)", ..."""
    groups = plan.groups(plan.num_phases - 1)
    return {
        group: f"{name} ({count} class{'es' if count != 1 else ''})"
        for group, (name, count) in zip(groups, phase_bands(plan).items(), strict=True)
    }


def _group_styles(plan: PhasePlan) -> dict[str, int]:
    """Style of every class group: the same in all charts, also where some groups are missing."""
    return {name: index for index, name in enumerate(group_names(plan).values())} | {_ALL: TOTAL, _MEAN: MEAN}


def _ap_axis(task: str) -> str:
    """Name of an axis of AP, with its range."""
    return f"{task} AP (0 to 1)"


def _lower_edge(name: str) -> float:
    """10 for "instances [10,100)"."""
    return float(name.removeprefix("instances ").partition(",")[0][1:])
