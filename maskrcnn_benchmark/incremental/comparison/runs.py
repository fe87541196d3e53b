"""Runs side by side: AP after each phase, by class group, forgetting; progress of a running one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.incremental.pipeline.damage import require_intact
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import (
    CONFIG_FILE,
    FINAL_WEIGHTS,
    PLAN_FILE,
    STATE_FILE,
    phase_folder,
    report_folder,
)
from maskrcnn_benchmark.incremental.reporting.charts import MEASURES, phase_ticks
from maskrcnn_benchmark.incremental.reporting.phase_report import METRICS_FILE as REPORT_METRICS
from maskrcnn_benchmark.incremental.reporting.reference import read_reference
from maskrcnn_benchmark.incremental.reporting.summary import Summary, build_summary
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.table import format_table
from maskrcnn_benchmark.visualize.line_chart import LineChart


@dataclass(frozen=True)
class RunResult:
    """Results of a run folder: name for tables, classes, reports so far, stage in progress ("" when none)."""

    name: str
    folder: Path
    plan: PhasePlan
    summary: Summary
    running: str


def read_run(folder: str | Path, name: str | None = None, reference: str = "") -> RunResult:
    """Read a finished or running run; `name` defaults to the name of the folder.

    Args:
        reference: run folder for intransigence; "" means LST.REFERENCE_RUN of the run.

    Raises:
        DataError: when `folder` is no run folder, or one of its reports is damaged.
        ConfigError: when the reference has other classes or is not finished.
    """
    folder = Path(folder)
    if not (folder / PLAN_FILE).is_file():
        raise DataError(
            f"{folder} is no folder of an LST run: it has no {PLAN_FILE}; give the OUTPUT_DIR of a run"
        )
    state = RunState(folder / STATE_FILE)
    require_intact(state, [folder / PLAN_FILE])
    plan = read_plan(folder)
    key = "the reference"
    if (folder / CONFIG_FILE).is_file():
        options = load_config(folder / CONFIG_FILE, for_comparison=True).LST
        plan = plan.with_report_sizes(options.REPORT_SIZES)
        if not reference:
            reference, key = options.REFERENCE_RUN, f"LST.REFERENCE_RUN of {folder}"
    require_intact(state, [report_folder(folder, p) / REPORT_METRICS for p in range(plan.num_phases)])
    summary = build_summary(plan, folder, read_reference(reference, plan, key))
    return RunResult(name or folder.resolve().name, folder, plan, summary, _running(folder, state))


def _running(folder: Path, state: RunState) -> str:
    """Stage that was begun last and is not finished, with the iteration and loss of training."""
    open_stages = [stage for stage in state.stages() if not state.finished(stage)]
    if not open_stages:
        return ""
    stage = open_stages[-1]
    if not stage.endswith("/train"):
        return stage
    phase_dir = phase_folder(folder, int(stage.removeprefix("phase_").partition("/")[0]))
    records = [r for r in read_metrics(phase_dir / METRICS_FILE) if r["kind"] == "train"]
    if not records or (phase_dir / FINAL_WEIGHTS).exists():
        return stage
    return f"{stage}, iteration {records[-1]['iteration']}, loss {records[-1]['loss']:.3f}"


def tasks_of(runs: Sequence[RunResult]) -> list[str]:
    """Tasks ("bbox", "segm") that any run has reported."""
    return list(dict.fromkeys(t for run in runs for entry in run.summary["phases"] for t in entry["tasks"]))


def format_comparison(runs: Sequence[RunResult]) -> str:
    """Format per task: AP of all seen classes after each phase, then the last phase in detail."""
    parts = [f"{run.name}: now at {run.running}" for run in runs if run.running]
    for task in tasks_of(runs):
        phases = sorted({entry["phase"] for run in runs for entry in run.summary["phases"]})
        rows = [[run.name, *(_ap(run, task, phase) for phase in phases)] for run in runs]
        headers = ["run", *(f"phase {phase}" for phase in phases)]
        parts.append(f"{task} AP of the seen classes after every phase\n{format_table(headers, rows)}")
        parts.append(_last_phase(runs, task))
    return "\n\n".join(parts) if tasks_of(runs) else "\n".join([*parts, "no phase has been reported yet"])


def _last_phase(runs: Sequence[RunResult], task: str) -> str:
    """Format a row per run: last reported phase, AP by class group and instance-count bin, forgetting."""
    last = {run.name: _entries(run, task)[-1] for run in runs if _entries(run, task)}
    values = {name: entry["tasks"][task] for name, entry in last.items()}
    groups = list(dict.fromkeys(g for v in values.values() for g in v["groups"]))
    bins = list(dict.fromkeys(b for v in values.values() for b in v["bins"]))
    measures = [m for m in MEASURES if any(f"mean_{m}" in v for v in values.values())]
    rows = [
        [
            name,
            entry["phase"],
            values[name]["metrics"].get("AP"),
            *(values[name]["groups"].get(g) for g in groups),
            *(values[name]["bins"].get(b) for b in bins),
            *(values[name].get(f"mean_{measure}") for measure in measures),
        ]
        for name, entry in last.items()
    ]
    names = [b.removeprefix("instances ") for b in bins]
    lost = [{"forgetting": "forgotten"}.get(measure, measure) for measure in measures]
    table = format_table(["run", "phase", "AP", *groups, *names, *lost], rows)
    return f"{task} AP after the last phase by class group and by training instances\n{table}"


def comparison_charts(runs: Sequence[RunResult]) -> list[LineChart]:
    """Charts per task: AP of all seen classes and mean forgetting after each phase, one line per run."""
    phases = sorted({entry["phase"] for run in runs for entry in run.summary["phases"]})
    ticks = phase_ticks(phases)
    charts = []
    for task in tasks_of(runs):
        ap = {run.name: [_ap(run, task, phase) for phase in phases] for run in runs}
        lost = {run.name: [_ap(run, task, phase, "mean_forgetting") for phase in phases] for run in runs}
        axis = f"{task} AP (0 to 1)"
        charts.append(LineChart(f"{task} AP of all seen classes", "after phase", axis, ticks, ap))
        title, axis = f"{task} AP that older groups lost", f"mean difference of {task} AP"
        charts.append(LineChart(title, "after phase", axis, ticks, lost))
    return charts


def comparison_json(runs: Sequence[RunResult]) -> dict[str, Any]:
    """Plain data per run: summary (see `build_summary`), folder, stage in progress."""
    return {run.name: {"folder": str(run.folder), "running": run.running, **run.summary} for run in runs}


def _entries(run: RunResult, task: str) -> list[dict[str, Any]]:
    """Summaries of the reported phases of a run that have the task."""
    return [entry for entry in run.summary["phases"] if task in entry["tasks"]]


def _ap(run: RunResult, task: str, phase: int, what: str = "AP") -> float | None:
    """AP or mean forgetting of a run after a phase; None when it is not reported or not defined."""
    for entry in _entries(run, task):
        if entry["phase"] == phase:
            values = entry["tasks"][task]
            return values["metrics"].get("AP") if what == "AP" else values[what]
    return None
