"""Report of one phase: AP of the seen classes by class group, class, frequency and instance count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.evaluation.confusion import Confusion, confusion_of_groups
from maskrcnn_benchmark.evaluation.groups import instance_bins
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import report_folder
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json, write_json_list
from maskrcnn_benchmark.utils.table import format_table, write_csv

METRICS_FILE, CLASSES_FILE, PHASES_FILE, CONFUSION_FILE, DETECTIONS_FILE = (
    "metrics.json",
    "per_class.csv",
    "per_phase.json",
    "confusion.json",
    "lvis_dt.json",
)
REPORT_FILES = (METRICS_FILE, CLASSES_FILE, PHASES_FILE, CONFUSION_FILE, DETECTIONS_FILE)
SUMMARY_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


def defined(value: float | None) -> float | None:
    """`value`, or None for the -1 of an undefined AP."""
    return None if value is None or value < 0 else value


def report_groups(plan: PhasePlan, phase: int) -> dict[str, list[int]]:
    """Category ids of each group reported after `phase`: class groups b0, t0, ..., instance-count bins.

    Bins divide the classes seen so far by their training instances; empty bins are left out.
    """
    seen = plan.classes[: plan.num_seen(phase)]
    bins = instance_bins({c.category_id: c.instance_count for c in seen})
    return plan.groups(phase) | {f"instances {name}": ids for name, ids in bins.items() if ids}


def write_phase_report(
    report: EvaluationReport,
    plan: PhasePlan,
    phase: int,
    folder: str | Path,
    *,
    confusion: Confusion,
    details: dict[str, Any],
) -> None:
    """Write metrics.json, per_class.csv, per_phase.json, confusion.json and lvis_dt.json of one phase.

    Reports of earlier phases are read from their folders in the same run, where they exist.

    Args:
        report: evaluation restricted to the classes seen after `phase`, with the groups of
            `report_groups`.
        confusion: predicted class groups of the objects of each class group (`phase_confusion`).
        details: further entries of metrics.json (checkpoint hash, rule for validation images, ...).
    """
    folder = Path(folder)
    groups = plan.groups(phase)
    per_phase: dict[str, Any] = {"phase": phase, "groups": {name: len(ids) for name, ids in groups.items()}}
    for task, values in report.tasks.items():
        per_phase[task] = {name: values.groups[name] for name in groups} | {"seen": values.metrics["AP"]}
    write_json_list(folder / DETECTIONS_FILE, report.detections.records())
    write_json(folder / PHASES_FILE, per_phase, indent=1)
    write_json(folder / CONFUSION_FILE, {"phase": phase, **confusion.to_json()}, indent=1)
    write_csv(folder / CLASSES_FILE, class_table(report, plan, phase, earlier_ap(folder, phase)))
    write_json(folder / METRICS_FILE, {"phase": phase, **details, **report.to_json()}, indent=1)


def phase_confusion(
    annotations: Mapping[str, Any], report: EvaluationReport, plan: PhasePlan, phase: int
) -> Confusion:
    """Confusion between the class groups that are complete after `phase`."""
    return confusion_of_groups(annotations, report.detections, plan.groups(phase))


def read_tasks(path: Path) -> dict[str, Any]:
    """Read the results by task from the metrics.json of a phase; DataError when it is no such report.

    Reports of earlier versions have no `per_category`.
    """
    content = read_json(path, what="phase report")
    tasks = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(tasks, dict) or not all(map(_is_task, tasks.values())):
        raise DataError(f"{path} is no report of a phase; delete it and give the training command again")
    return tasks


def _is_task(task: Any) -> bool:
    """Whether `task` has the tables of one task."""
    if not isinstance(task, dict):
        return False
    tables = task.get("metrics"), task.get("groups"), task.get("per_category", {})
    return all(map(_is_table, tables))


def _is_table(values: Any) -> bool:
    """Whether `values` maps names to numbers."""
    return isinstance(values, dict) and all(isinstance(v, int | float | None) for v in values.values())


def category_ap(tasks: Mapping[str, Any]) -> dict[str, dict[int, float | None]]:
    """AP by task and category id from the results of a phase (see `read_tasks`); None where undefined."""
    return {
        task: {int(category): defined(value) for category, value in content.get("per_category", {}).items()}
        for task, content in tasks.items()
    }


EarlierAP = dict[int, dict[str, dict[int, float | None]]]


def earlier_ap(folder: Path, phase: int) -> EarlierAP:
    """Phase -> task -> category id -> AP of the phases before `phase`, from the run that holds `folder`."""
    earlier: EarlierAP = {}
    for before in range(phase):
        path = report_folder(folder.parent.parent, before) / METRICS_FILE
        if path.exists():
            earlier[before] = category_ap(read_tasks(path))
    return earlier


def class_table(
    report: EvaluationReport, plan: PhasePlan, phase: int, earlier: EarlierAP | None = None
) -> list[list[Any]]:
    """Header and one row per seen class in label order; an undefined AP is an empty cell.

    Columns: the class; its AP per task; per task the AP after each phase of `earlier` and the change since
    the phase that added the class.
    """
    earlier = earlier or {}
    header = ["label", "category_id", "name", "group", "frequency", "instances", "images"]
    header += [f"{task}_AP" for task in report.tasks]
    for task in report.tasks:
        header += [f"{task}_AP_phase_{before}" for before in earlier] + [f"{task}_change"] * bool(earlier)
    group_of = plan.group_of_category()
    added_in = {label: p for p in range(phase) for label in plan.new_labels(p)}
    rows: list[list[Any]] = [header]
    for label, c in enumerate(plan.classes[: plan.num_seen(phase)], start=1):
        row = [label, c.category_id, c.name, group_of[c.category_id], c.frequency]
        now = {task: defined(v.per_category.get(c.category_id)) for task, v in report.tasks.items()}
        values = list(now.values())
        for task in report.tasks if earlier else ():
            course = {p: tasks.get(task, {}).get(c.category_id) for p, tasks in earlier.items()}
            first = course.get(added_in.get(label, phase))
            current = now[task]
            values += [*course.values(), None if first is None or current is None else current - first]
        rows.append([*row, c.instance_count, c.image_count, *("" if v is None else v for v in values)])
    return rows


def format_phase_report(report: EvaluationReport, plan: PhasePlan, phase: int) -> str:
    """Format the tables of one phase: COCO metrics, then AP per class group and per instance-count bin."""
    what = "base model" if phase == 0 else f"model after step {phase}"
    title = f"Phase {phase} ({what}): {plan.num_seen(phase)} classes, {report.num_images} images"
    names = [n for n in SUMMARY_METRICS if any(n in task.metrics for task in report.tasks.values())]
    groups = list(report_groups(plan, phase))
    classes = [n for n in groups if not n.startswith("instances ")]
    parts = [
        title,
        _task_table(report, "metrics", names),
        "AP by class group:",
        _task_table(report, "groups", classes),
    ]
    bins = [n for n in groups if n not in classes]
    if bins:
        parts += ["AP by training instances:", _task_table(report, "groups", bins)]
    return "\n".join(parts)


def _task_table(report: EvaluationReport, part: str, names: Sequence[str]) -> str:
    """Format a row per task and a column per name of the task's `metrics` or `groups` (`part`)."""
    rows = [[task, *(defined(getattr(v, part).get(n)) for n in names)] for task, v in report.tasks.items()]
    return format_table(["", *(n.removeprefix("instances ") for n in names)], rows)
