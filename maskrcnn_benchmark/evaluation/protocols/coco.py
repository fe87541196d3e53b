"""COCO protocol (Lin et al. 2014): AP of boxes and masks over IoU .5:.05:.95 and object sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.evaluation.ap import COCO_MAX_DETS, APResult
from maskrcnn_benchmark.evaluation.base import EVALUATORS, DetectionEvaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import read_ground_truth
from maskrcnn_benchmark.evaluation.iou import comparable
from maskrcnn_benchmark.evaluation.pairs import group_pairs, index_detections
from maskrcnn_benchmark.evaluation.protocols.keypoints import evaluate_keypoints
from maskrcnn_benchmark.evaluation.report import TaskReport
from maskrcnn_benchmark.evaluation.streamed import streamed_precision
from maskrcnn_benchmark.utils.files import StrPath


def evaluate_coco(
    dataset: Mapping[str, Any],
    detections: Detections,
    iou_type: str,
    *,
    area: str = "mask",
) -> APResult:
    """Evaluate boxes or masks by the COCO protocol; the arrays equal those of pycocotools.

    Args:
        dataset: the annotation file as a dict. detections: boxes x, y, width, height in pixels of the image.
        iou_type: "bbox" or "segm". area: what is taken for a detection's area in mask evaluation, "mask" (as
            pycocotools does for results without boxes) or "box".

    Differs from pycocotools only for an annotation with id 0, which pycocotools takes for "no match". Raises
    DataError for a detection of an unknown image, or without a mask where masks are compared.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    detections = detections.scored_for(iou_type)
    images, categories = index_detections(detections, truth)
    detections = comparable(truth, detections, iou_type)
    layout = group_pairs(
        truth,
        detections.scores,
        det_images=images,
        det_categories=categories,
        max_per_pair=COCO_MAX_DETS[-1],
    )
    precision, recall = streamed_precision(
        truth,
        detections,
        layout,
        iou_type,
        det_areas=detections.areas(iou_type, area),
        max_dets=COCO_MAX_DETS,
    )
    return APResult(
        precision, recall, truth.category_ids, "coco", iou_type, area, int((categories >= 0).sum())
    )


@EVALUATORS.register("coco")
class CocoEvaluator(DetectionEvaluator):
    """Box, mask and keypoint AP by the COCO protocol.

    Arguments beyond those of `DetectionEvaluator`: `keypoint_sigmas`, see `evaluate_keypoints`.
    """

    protocol = "coco"
    supported_tasks = ("bbox", "segm", "keypoints")

    def __init__(
        self,
        dataset: Mapping[str, Any],
        label_to_category: Sequence[int],
        tasks: Sequence[str] = ("bbox",),
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        shard_folder: StrPath | None = None,
        keypoint_sigmas: Sequence[float] = (),
    ) -> None:
        super().__init__(dataset, label_to_category, tasks, groups=groups, shard_folder=shard_folder)
        self.keypoint_sigmas = tuple(keypoint_sigmas)

    @staticmethod
    def options_from_cfg(cfg: CfgNode) -> dict[str, Any]:
        """The keypoint sigmas of TEST.KEYPOINT_OKS_SIGMAS."""
        return {"keypoint_sigmas": cfg.TEST.KEYPOINT_OKS_SIGMAS}

    def evaluate_task(self, detections: Detections, task: str) -> TaskReport:
        """AP of one task."""
        if task == "keypoints":
            return self.ap_report(evaluate_keypoints(self.dataset, detections, self.keypoint_sigmas))
        return self.ap_report(evaluate_coco(self.dataset, detections, task))
