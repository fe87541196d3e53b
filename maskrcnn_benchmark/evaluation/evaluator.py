"""Collects predictions by image id, joins those of all processes, and evaluates them in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.ap import APResult, evaluate_coco, evaluate_lvis
from maskrcnn_benchmark.evaluation.cityscapes import evaluate_cityscapes
from maskrcnn_benchmark.evaluation.class_ap import ClassAP
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.groups import frequency_groups, group_ap, step_state_groups
from maskrcnn_benchmark.evaluation.keypoints import evaluate_keypoints
from maskrcnn_benchmark.evaluation.report import EvaluationReport, TaskReport
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.evaluation.voc import evaluate_voc
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.comm import get_world_size, is_main_process, on_main
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import StrPath
from maskrcnn_benchmark.utils.shards import Merged, ShardExchange

# With several processes, detections go to disk whenever so many have come together.
SHARD_DETECTIONS = 100_000
# Evaluation of each protocol, and what its published numbers take for the area of a detected mask.
PROTOCOLS = {"coco": (evaluate_coco, "mask"), "lvis": (evaluate_lvis, "box")}
# What the data of each protocol can be tested for.
TASKS = {
    "coco": ("bbox", "segm", "keypoints"),
    "lvis": ("bbox", "segm", "keypoints"),
    "voc": ("bbox",),
    "cityscapes": ("bbox", "segm"),
}
SWITCHES = {"segm": "MODEL.MASK_ON", "keypoints": "MODEL.KEYPOINT_ON"}


class DetectionEvaluator:
    """Box and mask AP of a data set: `reset()`, `process()` for every batch, `evaluate()` at the end.

    Args:
        dataset_annotations: the annotation file as a dict (COCO or LVIS layout), all images that are
            tested.
        protocol: "coco", "lvis", "voc" or "cityscapes".
        label_to_category: category id of every label, entry 0 unused; may cover only some categories.
        iou_types: some of "bbox", "segm", "keypoints" (the latter by the COCO protocol).
        groups: further groups of category ids to report AP for, beside those the file defines.
        area: a detection's area in mask evaluation, "box" or "mask"; None takes the protocol's published
            habit.
        keypoint_sigmas: see `evaluate_keypoints`. voc_metric: see `evaluate_voc`.
        fixed_limit: LVIS: count so many of the best detections per class over all images (AP-fixed, Dave
            et al. 2021) instead of 300 per image; the others are forgotten on the way.
        shard_folder: where several processes hand over their detections, seen by all of them; not used by a
            single one.

    With several processes every one must call `reset` and `evaluate`; some may have no
    image to `process`.
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
        keypoint_sigmas: Sequence[float] = (),
        voc_metric: str = "11point",
        fixed_limit: int | None = None,
        shard_folder: StrPath | None = None,
    ) -> None:
        if protocol not in TASKS:
            raise DataError(f"evaluation protocol {protocol!r} is unknown; expected one of {sorted(TASKS)}")
        absent = [task for task in iou_types if task not in TASKS[protocol] and task in SWITCHES]
        if absent:
            raise DataError(
                f"data of kind {protocol} cannot be tested for {' and '.join(absent)}; set "
                + " and ".join(f"{SWITCHES[task]} False" for task in absent)
            )
        self.dataset = dataset_annotations
        self.protocol = protocol
        self.label_to_category = list(label_to_category)
        self.iou_types = tuple(iou_types)
        self.area = area
        self.keypoint_sigmas = tuple(keypoint_sigmas)
        self.voc_metric = voc_metric
        self.fixed_limit = fixed_limit if protocol == "lvis" else None
        categories = dataset_annotations["categories"]
        self.groups = frequency_groups(categories) | step_state_groups(categories) | dict(groups or {})
        self._sizes = {
            image["id"]: (image["width"], image["height"]) for image in dataset_annotations["images"]
        }
        self._shard_folder = shard_folder
        self._exchange: ShardExchange | None = None
        self._clear()

    def _clear(self) -> None:
        self._found: list[Detections] = []
        self._held = self._kept = 0
        self._seen: dict[int, None] = {}  # in the order of their processing
        self._handed_over = 0

    def reset(self) -> None:
        """Forget everything collected so far. Raises ValueError without the folder that processes need."""
        self._clear()
        if get_world_size() > 1:
            self._exchange = self._open_exchange()

    def _open_exchange(self) -> ShardExchange:
        if self._shard_folder is None:
            raise ValueError("several processes need a shard_folder to bring their detections together")
        return ShardExchange(self._shard_folder)

    def process(self, image_ids: Sequence[int], predictions: Sequence[BoxList]) -> None:
        """Take the predictions of a batch (any device); masks are pasted and encoded at once.

        An image that was seen before is left out. Raises DataError for an image id that the annotation file
        does not have.
        """
        for image_id, prediction in zip(image_ids, predictions, strict=True):
            if image_id not in self._sizes:
                raise DataError(f"image id {image_id} was tested but is not in the annotation file")
            if int(image_id) in self._seen:
                continue
            self._seen[int(image_id)] = None
            found = self.convert(prediction, int(image_id), self._sizes[image_id])
            self._found.append(found)
            self._held += len(found)
        if self.fixed_limit is not None:
            self._forget_weak(self.fixed_limit)
        elif self._exchange is not None and self._held >= SHARD_DETECTIONS:
            self._hand_over()

    def convert(self, prediction: BoxList, image_id: int, size: tuple[int, int]) -> Detections:
        """What is kept of a prediction: detections at the image's `size` (width, height)."""
        return boxlist_to_detections(prediction, image_id, size, self.label_to_category)

    def _forget_weak(self, limit: int) -> None:
        """Keep the best of every class, whenever twice as much is held as the last time."""
        if self._held >= max(SHARD_DETECTIONS, 2 * self._kept):
            best = Detections.concatenate(self._found).top_per_category(limit)
            self._found, self._held, self._kept = [best], len(best), len(best)

    def _hand_over(self) -> None:
        """Write what is held, and the images seen since the last time, as a shard."""
        assert self._exchange is not None
        seen = np.fromiter(self._seen, np.int64, len(self._seen))[self._handed_over :]
        self._exchange.write({**Detections.concatenate(self._found).columns(), "seen": seen})
        self._found, self._held, self._handed_over = [], 0, len(self._seen)

    def evaluate(self) -> EvaluationReport:
        """Bring the detections of all processes together and evaluate on the first.

        Every process gets the numbers of the report; the first has the detections too. An image that several
        processes saw counts once. The result does not depend on the number of processes.
        """
        if get_world_size() == 1:
            return self.evaluate_detections(self._in_order(Detections.concatenate(self._found)))
        if self._exchange is None:
            self._exchange = self._open_exchange()
        self._hand_over()
        merged = self._exchange.merge()
        self._exchange = None
        reports: list[EvaluationReport] = []

        def on_first() -> EvaluationReport:
            assert merged is not None
            reports.append(self.evaluate_detections(self._in_order(_first_views(merged))))
            return _numbers_only(reports[0])

        numbers = on_main(on_first)
        return reports[0] if is_main_process() else numbers

    def _in_order(self, detections: Detections) -> Detections:
        """The detections by ascending image id, those of an image in their order."""
        if not len(detections):
            return Detections.empty(with_masks="segm" in self.iou_types)
        return detections.select(np.argsort(detections.image_ids, kind="stable"))

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
        result = self._result(detections, iou_type)
        return TaskReport(
            metrics=result.metrics(),
            groups=group_ap(result, self.groups),
            per_category=result.per_category(),
            area="box" if iou_type == "bbox" else result.area,
            result=result,
        )

    def _result(self, detections: Detections, iou_type: str) -> APResult | ClassAP:
        """The evaluation of one task by the protocol."""
        if iou_type == "keypoints":
            return evaluate_keypoints(self.dataset, detections, self.keypoint_sigmas)
        if self.protocol == "voc":
            return evaluate_voc(self.dataset, detections, metric=self.voc_metric)
        if self.protocol == "cityscapes":
            return evaluate_cityscapes(self.dataset, detections, iou_type)
        evaluate, usual_area = PROTOCOLS[self.protocol]
        limit = {} if self.fixed_limit is None else {"fixed_limit": self.fixed_limit}
        return evaluate(self.dataset, detections, iou_type, area=self.area or usual_area, **limit)


def _first_views(merged: Merged) -> Detections:
    """Detections of all processes, without those of images that a lower rank has seen too."""
    detections = Detections.from_columns(merged.columns)
    seen = merged.columns["seen"]
    images, first = np.unique(seen, return_index=True)
    if len(images) == len(seen):
        return detections
    owner = merged.rank_of_rows("seen")[first][np.searchsorted(images, detections.image_ids)]
    return detections.select(owner == merged.rank_of_rows("scores"))


def _numbers_only(report: EvaluationReport) -> EvaluationReport:
    """The report without detections and arrays, small enough to be sent."""
    tasks = {name: replace(task, result=None) for name, task in report.tasks.items()}
    return replace(report, tasks=tasks, detections=Detections.empty())
