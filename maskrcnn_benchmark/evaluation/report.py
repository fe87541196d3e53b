"""The result of an evaluation, and its text table, CSV, JSON and result files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.evaluation.ap import APResult, ClassAP
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.utils.files import StrPath, write_json, write_json_list
from maskrcnn_benchmark.utils.table import format_table, write_csv


@dataclass
class TaskReport:
    """One task: summary metrics, AP per group and per category id (-1: undefined), and their arrays.

    `area` is what a detection's area was taken from, "box", "mask" or "keypoints": APs, APm and APl depend
    on it. With several ranks only rank 0 has `result`.
    """

    metrics: dict[str, float]
    groups: dict[str, float]
    per_category: dict[int, float]
    area: str
    result: APResult | ClassAP | None


@dataclass
class EvaluationReport:
    """The result of one evaluation.

    Attributes:
        protocol: the rules, for example "coco". num_images: images in the annotation file.
        tasks: reports by "bbox", "segm", "keypoints". names: category id -> name.
        detections: what was evaluated, by image id, in pixels of the original images; with several ranks only
            rank 0 has them, and they are empty on the others.
        unlabelled: the file has no annotations to compare with; the tasks have no metrics.
    """

    protocol: str
    num_images: int
    tasks: dict[str, TaskReport]
    names: dict[int, str]
    detections: Detections
    unlabelled: bool = False

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of all tasks by flat names: "segm/AP50", and "segm/AP/<group>" for groups."""
        flat: dict[str, float] = {}
        for iou_type, task in self.tasks.items():
            flat |= {f"{iou_type}/{name}": value for name, value in task.metrics.items()}
            flat |= {f"{iou_type}/AP/{name}": value for name, value in task.groups.items()}
        return flat

    def to_json(self) -> dict[str, Any]:
        """The report as plain data, without the detections."""
        tasks = {
            iou_type: {
                "metrics": task.metrics,
                "groups": task.groups,
                "per_category": {str(category): value for category, value in task.per_category.items()},
                "detection_area": task.area,
            }
            for iou_type, task in self.tasks.items()
        }
        return {
            "protocol": self.protocol,
            "num_images": self.num_images,
            "num_detections": len(self.detections),
            "tasks": tasks,
        }

    def class_rows(self) -> list[list[Any]]:
        """Rows `category id, name, AP of each task` in descending order of the last task's AP.

        An undefined AP is None, and its class comes last.
        """
        rows = []
        for category, name in self.names.items():
            values = [_defined(task.per_category.get(category, -1.0)) for task in self.tasks.values()]
            rows.append([category, name, *values])
        return sorted(rows, key=lambda row: (row[-1] is None, -(row[-1] or 0.0), row[0]))


def _defined(value: float) -> float | None:
    return None if value < 0 else value


def format_evaluation(report: EvaluationReport, per_class: bool = False) -> str:
    """Text tables: metrics and groups with one column per task, and with `per_class` the classes."""
    tasks = report.tasks
    lines = [
        f"{report.protocol.upper()} evaluation: {report.num_images} images, "
        f"{len(report.detections)} detections"
        + "".join(
            f"; {name} area of detections: {task.area}" for name, task in tasks.items() if name == "segm"
        )
    ]
    if report.unlabelled:
        return f"{lines[0]}; the file has no annotations to compare with, so there is no AP"
    names = list(dict.fromkeys(name for task in tasks.values() for name in task.metrics))
    rows = [[name, *(_defined(task.metrics.get(name, -1.0)) for task in tasks.values())] for name in names]
    groups = list(dict.fromkeys(name for task in tasks.values() for name in task.groups))
    rows += [
        [f"AP {name}", *(_defined(task.groups.get(name, -1.0)) for task in tasks.values())] for name in groups
    ]
    lines.append(format_table(["metric", *tasks], rows))
    if per_class:
        lines.append(format_classes(report))
    return "\n\n".join(lines)


def format_classes(report: EvaluationReport) -> str:
    """Text table of the classes from best to worst AP of the last task, undefined ones last."""
    headers = ["id", "class", *(f"{name} AP" for name in report.tasks)]
    return "AP of every class\n" + format_table(headers, report.class_rows())


def write_report(report: EvaluationReport, folder: StrPath, *, detections_name: str | None = None) -> None:
    """Write `metrics.json` and `per_class.csv` into `folder`, and the detections if they get a name.

    Undefined values (-1) are empty in the CSV.
    """
    target = Path(folder)
    write_json(target / "metrics.json", report.to_json(), indent=2)
    header = ["category_id", "name", *(f"{name}_AP" for name in report.tasks)]
    write_csv(target / "per_class.csv", [header, *report.class_rows()])
    if detections_name is not None:
        write_json_list(target / detections_name, report.detections.records())


def write_detections(report: EvaluationReport, folder: StrPath) -> None:
    """Write the detections in COCO result format, one file `<task>.json` per task.

    Where masks have scores of their own, `segm.json` has them as `score`, as other programs expect.
    """
    for task in report.tasks:
        value = {"segm": "segmentation"}.get(task, task)
        keys = ("image_id", "category_id", "score", value)
        records = report.detections.scored_for(task).records()
        write_json_list(Path(folder) / f"{task}.json", ({key: row[key] for key in keys} for row in records))
