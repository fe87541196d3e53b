"""The interface of all evaluators, their registry, and the base of those that collect detections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from yacs.config import CfgNode

from maskrcnn_benchmark.data.records.columns import NO_MASK
from maskrcnn_benchmark.data.records.content import Content, read_content
from maskrcnn_benchmark.evaluation.ap import APResult, ClassAP
from maskrcnn_benchmark.evaluation.collect import DetectionCollector
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.groups import frequency_groups, group_ap, step_state_groups
from maskrcnn_benchmark.evaluation.report import (
    EvaluationReport,
    TaskReport,
    write_detections,
    write_report,
)
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.comm import is_main_process, on_main
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import StrPath
from maskrcnn_benchmark.utils.registry import Registry


class Evaluator(ABC):
    """What tests the predictions of a model on a data set.

    Every rank calls `reset`, then `process` for each of its batches (perhaps none), then `evaluate`.

    Attributes: `protocol`: name of the rules in reports. `supported_tasks`: what it can evaluate, for
    example "bbox" and "segm".
    """

    protocol: ClassVar[str]
    supported_tasks: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __init__(
        self,
        dataset: Mapping[str, Any],
        label_to_category: Sequence[int],
        tasks: Sequence[str],
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        shard_folder: StrPath | None = None,
    ) -> None:
        """Arguments that all evaluators take, see `DetectionEvaluator`."""

    @staticmethod
    def options_from_cfg(cfg: CfgNode) -> dict[str, Any]:
        """Further keyword arguments of the constructor that the protocol reads from the config."""
        return {}

    @abstractmethod
    def reset(self) -> None:
        """Drop everything collected so far."""

    @abstractmethod
    def process(self, image_ids: Sequence[int], predictions: Sequence[BoxList]) -> None:
        """Take the predictions of a batch, one BoxList per image id, in any size and on any device."""

    @abstractmethod
    def evaluate(self) -> EvaluationReport:
        """Join the predictions of all ranks and evaluate them; collective over ranks.

        Every rank gets the metrics; only rank 0 has the detections and arrays.
        """

    @abstractmethod
    def write(self, report: EvaluationReport, folder: StrPath) -> None:
        """Write the report and the result files of the protocol into `folder` (rank 0 only)."""


EVALUATORS: Registry[type[Evaluator]] = Registry("evaluator", "evaluation/protocols/")


class DetectionEvaluator(Evaluator):
    """Base of the evaluators that collect `Detections` and evaluate them task by task.

    A protocol sets `protocol` and `supported_tasks` and defines `evaluate_task`.

    Args:
        dataset: the annotation file as a dict (COCO or LVIS layout) with all images that are tested.
        label_to_category: category id of every label, entry 0 unused; may cover only some categories.
        tasks: some of `supported_tasks`.
        groups: further groups of category ids to report AP for, beside those that the file defines.
        shard_folder: where several ranks exchange their detections, seen by all of them.
        max_per_category: see `DetectionCollector`.

    Raises DataError for a task that the protocol does not have.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any],
        label_to_category: Sequence[int],
        tasks: Sequence[str] = ("bbox",),
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        shard_folder: StrPath | None = None,
        max_per_category: int | None = None,
    ) -> None:
        unsupported = [task for task in tasks if task not in self.supported_tasks]
        if unsupported:
            raise DataError(
                f"the {self.protocol} protocol cannot evaluate {' and '.join(unsupported)}; it has "
                f"{', '.join(self.supported_tasks)}"
            )
        self.dataset = dataset
        self.label_to_category = list(label_to_category)
        self.tasks = tuple(tasks)
        categories = dataset["categories"]
        self.groups = frequency_groups(categories) | step_state_groups(categories) | dict(groups or {})
        self._sizes = {image["id"]: (image["width"], image["height"]) for image in dataset["images"]}
        self._collector = DetectionCollector(
            shard_folder=shard_folder, max_per_category=max_per_category, with_masks="segm" in self.tasks
        )

    def reset(self) -> None:
        """Drop everything collected so far; ValueError for several ranks without a `shard_folder`."""
        self._collector.reset()

    def process(self, image_ids: Sequence[int], predictions: Sequence[BoxList]) -> None:
        """Convert and collect the predictions of a batch; masks are pasted and encoded at once.

        An image that was processed before is left out. Raises DataError for an image id that the annotation
        file does not have.
        """
        for image_id, prediction in zip(image_ids, predictions, strict=True):
            if image_id not in self._sizes:
                raise DataError(f"image id {image_id} was tested but is not in the annotation file")
            if int(image_id) not in self._collector:
                size = self._sizes[image_id]
                self._collector.add(int(image_id), self.convert(prediction, int(image_id), size))
        self._collector.limit_memory()

    def convert(self, prediction: BoxList, image_id: int, size: tuple[int, int]) -> Detections:
        """Convert one prediction to detections at the image's original `size` (width, height)."""
        return boxlist_to_detections(prediction, image_id, size, self.label_to_category)

    def evaluate(self) -> EvaluationReport:
        """Join the detections of all ranks and evaluate them on rank 0; collective over ranks.

        Every rank gets the metrics; only rank 0 has the detections and arrays. An image that several ranks
        processed counts once. The result does not depend on the number of ranks.
        """
        detections = self._collector.gather()
        reports: list[EvaluationReport] = []

        def evaluate_gathered() -> EvaluationReport:
            assert detections is not None
            reports.append(self.evaluate_detections(detections))
            return _metrics_only(reports[0])

        metrics = on_main(evaluate_gathered)
        return reports[0] if is_main_process() else metrics

    def evaluate_detections(self, detections: Detections) -> EvaluationReport:
        """Evaluate given detections, without gathering; a file without annotations gives no metrics."""
        evaluate = self._nothing_to_compare if self.unlabelled else self.evaluate_task
        return EvaluationReport(
            protocol=self.protocol,
            num_images=len(self._sizes),
            tasks={task: evaluate(detections, task) for task in self.tasks},
            names={c["id"]: str(c.get("name", c["id"])) for c in self.dataset["categories"]},
            detections=detections,
            unlabelled=self.unlabelled,
        )

    def check_truth(self) -> None:
        """Raise what the evaluation would raise for the annotations, before anything is predicted.

        Raises DataError where masks are tested and annotations have none, and what `evaluate_task` raises.
        """
        if self.unlabelled:
            return
        columns, _ = read_content(self.dataset)
        without = np.flatnonzero(columns.segmentation == NO_MASK)
        if "segm" in self.tasks and len(without):
            raise DataError(
                f"annotation {columns.ids[without[0]]} has no segmentation ({len(without)} of {len(columns)} "
                "have none), but masks are tested: add it (an empty list stands for no mask), or set "
                "MODEL.MASK_ON False"
            )
        self.evaluate_detections(Detections.empty())

    @property
    def unlabelled(self) -> bool:
        """Whether the annotation file has no annotations to compare with (`AnnotationFile.unlabelled`)."""
        return isinstance(self.dataset, Content) and self.dataset.unlabelled

    def _nothing_to_compare(self, detections: Detections, task: str) -> TaskReport:
        """The report of a task without ground truth."""
        area = "mask" if task == "segm" else "box"
        return TaskReport(metrics={}, groups={}, per_category={}, area=area, result=None)

    @abstractmethod
    def evaluate_task(self, detections: Detections, task: str) -> TaskReport:
        """Evaluate one task by the rules of the protocol."""

    def ap_report(self, result: APResult | ClassAP) -> TaskReport:
        """The report of a task that has AP: metrics, and AP of every group and category."""
        return TaskReport(
            metrics=result.metrics(),
            groups=group_ap(result, self.groups),
            per_category=result.per_category(),
            area="box" if result.iou_type == "bbox" else result.area,
            result=result,
        )

    def write(self, report: EvaluationReport, folder: StrPath) -> None:
        """Write metrics, the per-class table, and the detections of each task as a COCO result file."""
        write_report(report, folder)
        write_detections(report, folder)


def _metrics_only(report: EvaluationReport) -> EvaluationReport:
    """The report without detections and arrays, small enough to be sent to the other ranks."""
    tasks = {name: replace(task, result=None) for name, task in report.tasks.items()}
    return replace(report, tasks=tasks, detections=Detections.empty())
