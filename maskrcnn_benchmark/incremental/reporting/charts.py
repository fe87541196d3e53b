"""Charts of a run beside those of its summary: forgetting, instance-count bins, single classes."""

from __future__ import annotations

from collections.abc import Sequence

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.tables import phase_bands
from maskrcnn_benchmark.incremental.reporting.class_history import ClassHistory
from maskrcnn_benchmark.incremental.reporting.summary import Summary, measure_chart, phase_ticks
from maskrcnn_benchmark.visualize.class_chart import ClassChart
from maskrcnn_benchmark.visualize.curves import LineChart


def forgetting_chart(summary: Summary, task: str) -> LineChart:
    """What every class group lost of its own phase's AP, after each later phase; the mean of all groups."""
    return measure_chart(summary, task, "forgetting", f"{task} AP lost since the phase of the group")


def bins_chart(summary: Summary, task: str) -> LineChart:
    """AP of the seen classes of every instance-count bin after each phase."""
    entries = [entry for entry in summary["phases"] if task in entry["tasks"]]
    values = [entry["tasks"][task]["bins"] for entry in entries]
    names = sorted({name for v in values for name in v}, key=_lower_edge)
    series = {name.removeprefix("instances "): [v.get(name) for v in values] for name in names}
    title = f"{task} AP by training instances of a class"
    return LineChart(title, "after phase", f"{task} AP", phase_ticks(e["phase"] for e in entries), series)


def history_chart(history: Sequence[ClassHistory], plan: PhasePlan, task: str) -> ClassChart:
    """AP of every class right after its own phase and after the last one."""
    return ClassChart(
        f"{task} AP of every class",
        f"{task} AP",
        {
            "after its own phase": [h.first for h in history],
            "after the last phase": [h.last for h in history],
        },
        phase_bands(plan, len(history)),
        names=[h.name for h in history],
    )


def _lower_edge(name: str) -> float:
    """10 for "instances [10,100)"."""
    return float(name.removeprefix("instances ").partition(",")[0][1:])
