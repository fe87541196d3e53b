"""SipMask as a one-stage head: FCOS with masks from coefficients and basis masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.quadrant_masks import quadrant_masks
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.heads.fcos.head import as_boxlist, require_outputs
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss, LossSettings
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import (
    Candidates,
    CandidateSettings,
    SuppressionSettings,
    detections_of,
    find_candidates,
)
from maskrcnn_benchmark.modeling.heads.fcos.targets import Points, at_points
from maskrcnn_benchmark.modeling.heads.fcos.towers import TowerStyle
from maskrcnn_benchmark.modeling.heads.sipmask.mask_loss import MaskLossSettings, mask_loss, mask_positives
from maskrcnn_benchmark.modeling.heads.sipmask.outputs import BASIS_STRIDE, SipMaskOutputs
from maskrcnn_benchmark.modeling.heads.sipmask.postprocess import full_image_masks, resize_factors
from maskrcnn_benchmark.modeling.heads.sipmask.rescoring import rescoring_loss, score_masks
from maskrcnn_benchmark.modeling.heads.sipmask.towers import SipMaskTowers
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.registry import HEADS
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.geometry import ImageGeometry
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

if TYPE_CHECKING:
    from yacs.config import CfgNode


@dataclass(frozen=True)
class DetectionSettings:
    """How detections are made. in_original: overlaps are measured in pixels of the image file. mask_resize:
    see `MASK_RESIZES`.
    """

    candidates: CandidateSettings
    suppression: SuppressionSettings
    in_original: bool
    mask_threshold: float
    mask_resize: str


class SipMask(OneStageHead[SipMaskOutputs]):
    """Child `head` (parity: its name in published files)."""

    timed_parts = MappingProxyType({"_with_masks": "mask assembly"})

    def __init__(
        self,
        towers: SipMaskTowers,
        strides: Sequence[int],
        loss: FCOSLoss,
        mask_loss_settings: MaskLossSettings,
        detection: DetectionSettings,
    ) -> None:
        super().__init__()
        self.head = towers
        self.strides = list(strides)
        self.loss = loss
        self.mask_loss_settings = mask_loss_settings
        self.detection = detection

    def forward(self, features: Sequence[Tensor]) -> SipMaskOutputs:
        """See OneStageHead."""
        return self.head(features)

    def losses(self, outputs: SipMaskOutputs, inputs: ModelInput) -> dict[str, LossTerm]:
        """`loss_cls`, `loss_reg`, `loss_centerness`, `loss_mask`, with mask scores `loss_mask_score`.

        The targets need masks of the size of their image.
        """
        targets = inputs.ground_truth()
        points, settings = self.points(outputs), self.mask_loss_settings
        labels, positives = self.loss.positives(points, targets)
        losses = self.loss.of_positives(outputs.boxes, labels, positives)
        found = mask_positives(outputs, points, positives, targets, settings)
        losses["loss_mask"] = LossTerm(mask_loss(outputs, found, settings), len(targets))
        if self.head.rescoring:
            losses["loss_mask_score"] = rescoring_loss(
                outputs.basis,
                found,
                self.head.convs_scoring,
                self.head.mask_scoring,
                self.detection.mask_threshold,
            )
        return losses

    @torch.no_grad()
    def predict(self, outputs: SipMaskOutputs, images: ImageList) -> list[BoxList]:
        """See OneStageHead; fields `scores`, `labels`, `mask`, with mask scores `mask_scores`."""
        require_outputs(outputs.boxes)
        require_finite(outputs.basis, "the basis masks")
        settings, results = self.detection, []
        found = find_candidates(outputs.boxes, self.points(outputs), settings.candidates)
        for image, (candidates, geometry) in enumerate(zip(found, images.geometry, strict=True)):
            vertical, horizontal = resize_factors(geometry, settings.mask_resize)
            factors = (horizontal, vertical) if settings.in_original else (1.0, 1.0)
            kept = detections_of(candidates, geometry.input_size, factors, settings.suppression)
            results.append(self._with_masks(outputs, image, kept, geometry))
        return results

    def _with_masks(
        self, outputs: SipMaskOutputs, image: int, kept: Candidates, geometry: ImageGeometry
    ) -> BoxList:
        """Detections of one image with their masks."""
        basis, result = outputs.basis[image], as_boxlist(kept, geometry.input_size)
        where = torch.full_like(kept.point, image)
        coefficients = at_points(outputs.coefficients, where, kept.point)
        masks = full_image_masks(
            coefficients,
            basis,
            kept.boxes,
            geometry,
            threshold=self.detection.mask_threshold,
            resize=self.detection.mask_resize,
        )
        result.add_field("mask", masks[:, None])
        if self.head.rescoring:
            planes = quadrant_masks(coefficients, basis, kept.boxes / BASIS_STRIDE)
            expected = score_masks(planes, self.head.convs_scoring, self.head.mask_scoring).float()
            rows = torch.arange(len(planes), device=planes.device)
            result.add_field("mask_scores", expected[rows, kept.labels - 1] * kept.scores)
        return result

    def points(self, outputs: SipMaskOutputs) -> Points:
        """The locations that outputs of these sizes belong to."""
        return Points.of(outputs.boxes, self.strides, in_strides=self.head.distances != "exponential")


@HEADS.register("sipmask")
def build_sipmask(cfg: CfgNode, features: FeatureSpecs) -> SipMask:
    """MODEL.SIPMASK on the feature maps of a backbone."""
    node = cfg.MODEL.SIPMASK
    towers = SipMaskTowers(
        common_channels(features),
        node.NUM_CLASSES - 1,
        depth=node.NUM_CONVS,
        levels=len(node.FPN_STRIDES),
        num_basis=node.NUM_BASIS,
        prior_probability=node.PRIOR_PROB,
        distances=node.DISTANCES if node.NORM_REG_TARGETS else "exponential",
        centerness_on_boxes=node.CENTERNESS_ON_REG,
        style=TowerStyle(node.TOWER_NORM == "GN", node.TOWER_BIAS, node.USE_DCN_IN_TOWER),
        align_bias=node.ALIGN_BIAS,
        rescoring=node.RESCORING,
    )
    loss = LossSettings(
        node.LOSS_GAMMA,
        node.LOSS_ALPHA,
        node.IOU_LOSS_TYPE,
        node.CENTER_SAMPLING_RADIUS,
        per_process=node.LOSS_NORMALIZER == "per_process",
    )
    return SipMask(
        towers,
        node.FPN_STRIDES,
        FCOSLoss(node.FPN_STRIDES, loss),
        MaskLossSettings(node.MASK_TRAIN_NMS, node.MASK_LOSS_HALVING, node.MASK_WEIGHT_EPS),
        _detection(cfg),
    )


def _detection(cfg: CfgNode) -> DetectionSettings:
    node = cfg.MODEL.SIPMASK
    return DetectionSettings(
        CandidateSettings(
            node.INFERENCE_TH,
            node.PRE_NMS_TOP_N,
            root=node.SCORE_SQRT,
            on_score=node.THRESHOLD_ON == "score",
            by_location=node.TOPK_BY == "location",
        ),
        SuppressionSettings(
            node.NMS_TH,
            cfg.TEST.DETECTIONS_PER_IMG,
            fast=node.NMS_TYPE == "fast",
            top_k=node.FAST_NMS_TOP_K,
        ),
        in_original=node.NMS_COORDINATES == "original",
        mask_threshold=node.MASK_TH,
        mask_resize=node.MASK_RESIZE,
    )
