"""LVIS protocol (Gupta et al. 2019), v0.5 and v1: federated AP of boxes and masks, and AP-fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from yacs.config import CfgNode

from maskrcnn_benchmark.evaluation.ap import APResult
from maskrcnn_benchmark.evaluation.base import EVALUATORS, DetectionEvaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, indices_in, read_ground_truth
from maskrcnn_benchmark.evaluation.iou import comparable
from maskrcnn_benchmark.evaluation.pairs import group_pairs, index_detections
from maskrcnn_benchmark.evaluation.protocols.keypoints import evaluate_keypoints
from maskrcnn_benchmark.evaluation.report import TaskReport
from maskrcnn_benchmark.evaluation.streamed import streamed_precision
from maskrcnn_benchmark.utils.files import StrPath

MAX_DETS = 300
"""Detections of an image that count, over all categories."""


def evaluate_lvis(
    dataset: Mapping[str, Any],
    detections: Detections,
    iou_type: str,
    *,
    area: str = "box",
    fixed_limit: int | None = None,
) -> APResult:
    """Evaluate boxes or masks by the LVIS protocol; the arrays equal those of lvis-api 0.5.3.

    Args:
        dataset: the annotation file as a dict. detections: boxes x, y, width, height in pixels of the image.
        iou_type: "bbox" or "segm". area: what is taken for a detection's area in mask evaluation, "box" (as
            in published results) or "mask".
        fixed_limit: None counts the 300 best detections of an image over all categories; a number that many
            of the best detections of every category over all images instead (AP-fixed, Dave et al. 2021).

    A detection counts only where its category has ground truth in the image or is known to be absent
    (`neg_category_ids`); unmatched ones of `not_exhaustive_category_ids` are ignored.
    Raises DataError for a detection of an unknown image, or without a mask where masks are compared.
    """
    truth = read_ground_truth(dataset, crowd=False, drop_empty=True)
    detections = detections.scored_for(iou_type)
    if fixed_limit is None:
        limited, limit = detections.top_per_image(MAX_DETS), str(MAX_DETS)
    else:
        limited, limit = detections.top_per_category(fixed_limit), f"{fixed_limit}/class"
    images, categories = index_detections(limited, truth)
    limited = comparable(truth, limited, iou_type)
    areas = limited.areas(iou_type, area)
    keys = categories * len(truth.image_ids) + images
    counted = np.isin(keys, truth.categories * len(truth.image_ids) + truth.images)
    counted |= np.isin(keys, _listed_pairs(dataset, truth, "neg_category_ids"))
    counted &= (areas > 0) & (areas < np.inf)
    not_exhaustive = np.isin(keys, _listed_pairs(dataset, truth, "not_exhaustive_category_ids"))
    layout = group_pairs(
        truth, limited.scores, det_images=images, det_categories=np.where(counted, categories, -1)
    )
    precision, recall = streamed_precision(
        truth,
        limited,
        layout,
        iou_type,
        det_areas=areas,
        ignore_unmatched=not_exhaustive,
        max_dets=(None,),
    )
    return APResult(
        precision[..., 0],
        recall[..., 0],
        truth.category_ids,
        protocol="lvis",
        iou_type=iou_type,
        area=area,
        num_detections=len(limited),
        frequencies={c["id"]: c["frequency"] for c in dataset["categories"] if "frequency" in c},
        limit=limit,
    )


def _listed_pairs(dataset: Mapping[str, Any], truth: GroundTruth, key: str) -> np.ndarray:
    """int64: category * I + image for every category that the images list under `key`."""
    pairs = [(image["id"], category) for image in dataset["images"] for category in image.get(key) or ()]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    categories = indices_in(truth.category_ids, table[:, 1])
    images = indices_in(truth.image_ids, table[:, 0])
    return (categories * len(truth.image_ids) + images)[categories >= 0]


@EVALUATORS.register("lvis")
class LvisEvaluator(DetectionEvaluator):
    """Box and mask AP by the LVIS protocol, keypoint AP by that of COCO.

    Arguments beyond those of `DetectionEvaluator`: `fixed_limit`, see `evaluate_lvis`; detections that cannot
    be among the best of their category are dropped while they are collected. `keypoint_sigmas`: see
    `evaluate_keypoints`.
    """

    protocol = "lvis"
    supported_tasks = ("bbox", "segm", "keypoints")

    def __init__(
        self,
        dataset: Mapping[str, Any],
        label_to_category: Sequence[int],
        tasks: Sequence[str] = ("bbox",),
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        shard_folder: StrPath | None = None,
        fixed_limit: int | None = None,
        keypoint_sigmas: Sequence[float] = (),
    ) -> None:
        super().__init__(
            dataset,
            label_to_category,
            tasks,
            groups=groups,
            shard_folder=shard_folder,
            max_per_category=fixed_limit,
        )
        self.fixed_limit = fixed_limit
        self.keypoint_sigmas = tuple(keypoint_sigmas)

    @staticmethod
    def options_from_cfg(cfg: CfgNode) -> dict[str, Any]:
        """The limit of TEST.LVIS_PROTOCOL "fixed", and the keypoint sigmas."""
        fixed = cfg.TEST.LVIS_PROTOCOL == "fixed"
        return {
            "fixed_limit": cfg.TEST.FIXED_DETS_PER_CLASS if fixed else None,
            "keypoint_sigmas": cfg.TEST.KEYPOINT_OKS_SIGMAS,
        }

    def evaluate_task(self, detections: Detections, task: str) -> TaskReport:
        """AP of one task."""
        if task == "keypoints":
            return self.ap_report(evaluate_keypoints(self.dataset, detections, self.keypoint_sigmas))
        return self.ap_report(evaluate_lvis(self.dataset, detections, task, fixed_limit=self.fixed_limit))
