"""Summary of a run: a row per phase, forgetting of each class group, curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.engine.writers import TENSORBOARD_FOLDER, TensorboardWriter
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import report_folder
from maskrcnn_benchmark.incremental.reporting.charts import MEASURES, summary_charts, summary_tasks
from maskrcnn_benchmark.incremental.reporting.phase_report import (
    METRICS_FILE,
    SUMMARY_METRICS,
    defined,
    read_tasks,
)
from maskrcnn_benchmark.incremental.reporting.reference import Reference
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json
from maskrcnn_benchmark.utils.table import format_table, write_csv
from maskrcnn_benchmark.visualize.figure import save_figure
from maskrcnn_benchmark.visualize.line_chart import plot_lines

Summary = dict[str, Any]
SUMMARY_FILE = "summary.json"
SUMMARY_FILES = (SUMMARY_FILE, "summary.csv", "summary.png")


def build_summary(plan: PhasePlan, run_dir: Path, reference: Reference | None = None) -> Summary:
    """Collect the reports that exist in a run folder.

    Returns:
        {"phases": [{"phase", "seen", "new", "tasks": {task: {"metrics", "groups", "bins", "forgetting",
        "mean_forgetting"}}}, ...]}; undefined values are None. The forgetting of a class group is its AP
        right after the phase that completed it minus its AP now (None when either is undefined); the mean is
        over older groups. With a reference also "intransigence" and "mean_intransigence" (Chaudhry et al.
        2018): its AP of a group minus that right after the phase that completed the group.
    """
    complete = plan.group_phases()
    rows: list[dict[str, Any]] = []
    first: dict[tuple[str, str], float | None] = {}
    for phase in range(plan.num_phases):
        path = report_folder(run_dir, phase) / METRICS_FILE
        if not path.exists():
            continue
        tasks = {}
        for task, content in read_tasks(path).items():
            groups = {name: defined(content["groups"][name]) for name in plan.groups(phase)}
            first |= {(task, name): now for name, now in groups.items() if complete[name] == phase}
            forgetting = {
                name: _difference(first.get((task, name)), now)
                for name, now in groups.items()
                if complete[name] < phase
            }
            tasks[task] = {
                "metrics": {n: defined(v) for n, v in content["metrics"].items()},
                "groups": groups,
                "bins": {n: defined(v) for n, v in content["groups"].items() if n.startswith("instances ")},
                "forgetting": forgetting,
                "mean_forgetting": _mean(forgetting),
            }
            if reference is not None:
                short = {
                    name: _difference(reference.group_ap(task, ids), first.get((task, name)))
                    for name, ids in plan.groups(phase).items()
                }
                tasks[task] |= {"intransigence": short, "mean_intransigence": _mean(short)}
        rows.append({"phase": phase, "seen": plan.num_seen(phase), "new": plan.sizes[phase], "tasks": tasks})
    return {"phases": rows}


def _difference(before: float | None, now: float | None) -> float | None:
    """`before` - `now`, None when one of them is."""
    return None if before is None or now is None else before - now


def _mean(values: Mapping[str, float | None]) -> float | None:
    """Mean of the values that are defined; None when there is none."""
    known = [value for value in values.values() if value is not None]
    return sum(known) / len(known) if known else None


def write_summary(summary: Summary, plan: PhasePlan, run_dir: Path) -> None:
    """Write summary.csv (one row per phase), summary.png and, when these are complete, summary.json."""
    table = summary_rows(summary)
    # the last phase has the most columns and gives their order
    names = list(dict.fromkeys(name for row in reversed(table) for name in row))
    write_csv(run_dir / "summary.csv", [names, *([row.get(n) for n in names] for row in table)])
    columns = max(1, len(summary_tasks(summary)))
    save_figure(plot_lines(summary_charts(summary, plan), columns), run_dir / "summary.png")
    write_json(run_dir / SUMMARY_FILE, summary, indent=1)


def stored_summary(run_dir: Path) -> Summary | None:
    """What summary.json holds, which belongs to the other summary files.

    None when one of them is missing or it cannot be read.
    """
    files = [run_dir / name for name in SUMMARY_FILES]
    try:
        summary = read_json(files[0], what="summary") if all(path.is_file() for path in files) else None
        return summary if summary is None or summary_rows(summary) else None
    except (DataError, KeyError, TypeError, AttributeError):
        return None


def summary_rows(summary: Summary) -> list[dict[str, Any]]:
    """Flat rows, one per phase.

    Names: phase, seen, new, <task>/<metric>, <task>/AP/<group>, <task>/forgetting and <task>/intransigence,
    these two also by group.
    """
    rows = []
    for entry in summary["phases"]:
        row: dict[str, Any] = {name: entry[name] for name in ("phase", "seen", "new")}
        for task, values in entry["tasks"].items():
            row |= {f"{task}/{name}": value for name, value in values["metrics"].items()}
            row |= {f"{task}/AP/{name}": value for name, value in (values["groups"] | values["bins"]).items()}
            for measure in MEASURES:
                row |= {f"{task}/{measure}/{n}": value for n, value in values.get(measure, {}).items()}
                if measure in values:
                    row[f"{task}/{measure}"] = values[f"mean_{measure}"]
        rows.append(row)
    return rows


def format_summary(summary: Summary, plan: PhasePlan) -> str:
    """Text tables, one per task: a row per phase with the metrics, every class group, mean forgetting."""
    tasks = summary_tasks(summary)
    groups = list(plan.groups(plan.num_phases - 1))
    parts = []
    for task in tasks:
        entries = [e for e in summary["phases"] if task in e["tasks"]]
        names = [n for n in SUMMARY_METRICS if any(n in e["tasks"][task]["metrics"] for e in entries)]
        rows = []
        for entry in entries:
            values = entry["tasks"][task]
            cells = [values["metrics"].get(n) for n in names] + [values["groups"].get(n) for n in groups]
            means = [values[f"mean_{measure}"] for measure in MEASURES if measure in values]
            rows.append([entry["phase"], entry["seen"], *cells, *means])
        short = any("intransigence" in e["tasks"][task] for e in entries)
        headers = ["phase", "classes", *names, *groups, "forgotten", *(["intransigence"] if short else [])]
        parts.append(
            f"{task} AP per phase (class groups: b0 base, t0 first step, ...)\n{format_table(headers, rows)}"
        )
    return "\n\n".join(parts) if parts else "no phase has been reported yet"


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
    file = TensorboardWriter(run_dir / TENSORBOARD_FOLDER, first)
    try:
        for row in rows:
            if row["phase"] >= first:
                file.write(_scalars(row), row["phase"])
    finally:
        file.close()


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """The defined values except the phase."""
    return {name: value for name, value in row.items() if name != "phase" and value is not None}
