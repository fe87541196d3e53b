"""Collects predictions of all processes by image id and evaluates them in one pass from memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maskrcnn_benchmark.evaluation.ap import APResult, evaluate_coco, evaluate_lvis
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.groups import frequency_groups, group_ap, step_state_groups
from maskrcnn_benchmark.evaluation.report import EvaluationReport, TaskReport
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.comm import all_gather_objects, broadcast_object, is_main_process
from maskrcnn_benchmark.utils.errors import DataError

# Evaluation of each protocol, and what its published numbers take for the area of a detected mask.
PROTOCOLS = {"coco": (evaluate_coco, "mask"), "lvis": (evaluate_lvis, "box")}


class DetectionEvaluator:
    """Box and mask AP of a data set: ``reset()``, ``process()`` for every batch, ``evaluate()`` at the end.

    Args:
        dataset_annotations: the annotation file as a dict (COCO or LVIS layout), all pictures that are
            tested.
        protocol: "coco" or "lvis".
        label_to_category: category id of every label, entry 0 unused; may cover only some categories.
        iou_types: "bbox", "segm" or both.
        groups: further groups of category ids to report AP for, beside those the file defines.
        area: a detection's area in mask evaluation, "box" or "mask"; None takes the protocol's published
            habit.
    """

    def __init__(
        self,
        dataset_annotations: Mapping[str, Any],
        protocol: str,
        label_to_category: Sequence[int],
        iou_types: Sequence[str] = ("bbox",),
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        area: str | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise DataError(
                f"evaluation protocol {protocol!r} is unknown; expected one of {sorted(PROTOCOLS)}"
            )
        self.dataset = dataset_annotations
        self.protocol = protocol
        self.label_to_category = list(label_to_category)
        self.iou_types = tuple(iou_types)
        self.area = area
        categories = dataset_annotations["categories"]
        self.groups = frequency_groups(categories) | step_state_groups(categories) | dict(groups or {})
        self._sizes = {
            image["id"]: (image["width"], image["height"]) for image in dataset_annotations["images"]
        }
        self._found: dict[int, Detections] = {}

    def reset(self) -> None:
        """Forget everything collected so far."""
        self._found = {}

    def process(self, image_ids: Sequence[int], predictions: Sequence[BoxList]) -> None:
        """Take the predictions of a batch (any device); masks are pasted and encoded at once.

        Raises DataError for an image id that the annotation file does not have.
        """
        for image_id, prediction in zip(image_ids, predictions, strict=True):
            if image_id not in self._sizes:
                raise DataError(f"image id {image_id} was tested but is not in the annotation file")
            self._found[int(image_id)] = boxlist_to_detections(
                prediction, int(image_id), self._sizes[image_id], self.label_to_category
            )

    def evaluate(self) -> EvaluationReport:
        """Gather over all processes and evaluate on the first; every process gets the report.

        A picture that several processes saw counts once. The result does not depend on the number of
        processes.
        """
        gathered: dict[int, Detections] = {}
        for part in all_gather_objects(self._found):
            gathered |= {image_id: found for image_id, found in part.items() if image_id not in gathered}
        report = None
        if is_main_process():
            detections = Detections.concatenate([gathered[image_id] for image_id in sorted(gathered)])
            if not len(detections):
                detections = Detections.empty(with_masks="segm" in self.iou_types)
            report = self.evaluate_detections(detections)
        return broadcast_object(report)

    def evaluate_detections(self, detections: Detections) -> EvaluationReport:
        """The report for given detections, without gathering."""
        tasks = {iou_type: self._task(detections, iou_type) for iou_type in self.iou_types}
        return EvaluationReport(
            protocol=self.protocol,
            num_images=len(self._sizes),
            tasks=tasks,
            names={c["id"]: str(c.get("name", c["id"])) for c in self.dataset["categories"]},
            detections=detections,
        )

    def _task(self, detections: Detections, iou_type: str) -> TaskReport:
        evaluate, usual_area = PROTOCOLS[self.protocol]
        result: APResult = evaluate(self.dataset, detections, iou_type, area=self.area or usual_area)
        return TaskReport(
            metrics=result.metrics(),
            groups=group_ap(result, self.groups),
            per_category=result.per_category(),
            area=result.area if iou_type == "segm" else "box",
            result=result,
        )
