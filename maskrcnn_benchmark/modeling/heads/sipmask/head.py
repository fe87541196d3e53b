"""SipMask as a one-stage head: FCOS with masks from coefficients and basis masks (Cao et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.quadrant_masks import quadrant_masks
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.heads.common import detection_boxlist, gather_at_points, require_strides
from maskrcnn_benchmark.modeling.heads.fcos.head import require_finite_outputs
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import Candidates, FCOSPostProcessor
from maskrcnn_benchmark.modeling.heads.fcos.targets import Points
from maskrcnn_benchmark.modeling.heads.sipmask.loss import SipMaskLoss
from maskrcnn_benchmark.modeling.heads.sipmask.postprocess import assemble_full_masks, resize_scale
from maskrcnn_benchmark.modeling.heads.sipmask.targets import BASIS_STRIDE, SipMaskOutputs
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


class SipMask(OneStageHead[SipMaskOutputs]):
    """Child `head`, the towers (parity: its name in published files)."""

    timed_parts = MappingProxyType({"_with_masks": "mask assembly"})

    def __init__(
        self,
        towers: SipMaskTowers,
        strides: Sequence[int],
        loss: SipMaskLoss,
        post_processor: FCOSPostProcessor,
        *,
        nms_in_original: bool,
        mask_threshold: float,
        mask_resize: str,
    ) -> None:
        """nms_in_original: IoUs of NMS are computed in pixels of the image file. mask_threshold: probability
        above which a pixel belongs to a mask. mask_resize: one of MASK_RESIZES.
        """
        super().__init__()
        self.head = towers
        self.strides = list(strides)
        self.loss = loss
        self.post_processor = post_processor
        self.nms_in_original = nms_in_original
        self.mask_threshold = mask_threshold
        self.mask_resize = mask_resize

    def forward(self, features: Sequence[Tensor]) -> SipMaskOutputs:
        """Raw outputs on the feature maps (B, K, H_l, W_l), finest first."""
        return self.head(features)

    def losses(self, outputs: SipMaskOutputs, inputs: ModelInput) -> dict[str, LossTerm]:
        """Unnormalised `loss_cls`, `loss_reg`, `loss_centerness`, `loss_mask`, with mask scores
        `loss_mask_score`.
        """
        return self.loss(outputs, self.points(outputs), inputs.ground_truth(), self.head)

    @torch.no_grad()
    def predict(self, outputs: SipMaskOutputs, images: ImageList) -> list[BoxList]:
        """Detections per image, best first: fields `scores`, `labels`, `mask`, with scores `mask_scores`."""
        require_finite_outputs(outputs.boxes)
        require_finite(outputs.basis, "the basis masks")
        results = []
        per_image = self.post_processor.candidates(outputs.boxes, self.points(outputs))
        for i, (candidates, geometry) in enumerate(zip(per_image, images.geometry, strict=True)):
            vertical, horizontal = resize_scale(geometry, self.mask_resize)
            nms_scale = (horizontal, vertical) if self.nms_in_original else (1.0, 1.0)
            kept = self.post_processor.detections(candidates, geometry.input_size, nms_scale)
            results.append(self._with_masks(outputs, i, kept, geometry))
        return results

    def _with_masks(
        self, outputs: SipMaskOutputs, image: int, kept: Candidates, geometry: ImageGeometry
    ) -> BoxList:
        """Detections of one image with their masks."""
        basis = outputs.basis[image]
        coefficients = gather_at_points(outputs.coefficients, torch.full_like(kept.point, image), kept.point)
        require_finite(coefficients, "the mask coefficients")
        masks = assemble_full_masks(
            coefficients,
            basis,
            kept.boxes,
            geometry,
            threshold=self.mask_threshold,
            resize=self.mask_resize,
        )
        result = detection_boxlist(kept.boxes, kept.scores, kept.labels, geometry.input_size)
        result.add_field("mask", masks[:, None])
        if self.head.rescoring:
            expected = self.head.score_masks(quadrant_masks(coefficients, basis, kept.boxes / BASIS_STRIDE))
            require_finite(expected, "the mask scores")
            rows = torch.arange(len(expected), device=expected.device)
            result.add_field("mask_scores", expected.float()[rows, kept.labels - 1] * kept.scores)
        return result

    def points(self, outputs: SipMaskOutputs) -> Points:
        """Locations of the maps of `outputs`."""
        return Points.of(outputs.boxes, self.strides, in_strides=self.head.in_strides)


@HEADS.register("sipmask")
def build_sipmask(cfg: CfgNode, features: FeatureSpecs) -> SipMask:
    """Build the head from MODEL.SIPMASK for the feature maps of a backbone."""
    node = cfg.MODEL.SIPMASK
    require_strides(features, node.FPN_STRIDES, "MODEL.SIPMASK.FPN_STRIDES")
    towers = SipMaskTowers(
        common_channels(features),
        node.NUM_CLASSES - 1,
        depth=node.NUM_CONVS,
        levels=len(features),
        num_basis=node.NUM_BASIS,
        prior_probability=node.PRIOR_PROB,
        distances=node.DISTANCES if node.NORM_REG_TARGETS else "exponential",
        centerness_on_boxes=node.CENTERNESS_ON_REG,
        group_norm=node.TOWER_NORM == "GN",
        bias=node.TOWER_BIAS,
        align_bias=node.ALIGN_BIAS,
        deformable=node.USE_DCN_IN_TOWER,
        rescoring=node.RESCORING,
    )
    return SipMask(
        towers,
        node.FPN_STRIDES,
        _loss(node),
        _post_processor(cfg),
        nms_in_original=node.NMS_COORDINATES == "original",
        mask_threshold=node.MASK_TH,
        mask_resize=node.MASK_RESIZE,
    )


def _loss(node: CfgNode) -> SipMaskLoss:
    fcos = FCOSLoss(
        node.FPN_STRIDES,
        gamma=node.LOSS_GAMMA,
        alpha=node.LOSS_ALPHA,
        box_loss=node.IOU_LOSS_TYPE,
        center_radius=node.CENTER_SAMPLING_RADIUS,
        per_process=node.LOSS_NORMALIZER == "per_process",
    )
    return SipMaskLoss(
        fcos,
        train_nms=node.MASK_TRAIN_NMS,
        weight_eps=node.MASK_WEIGHT_EPS,
        halving=node.MASK_LOSS_HALVING,
        mask_threshold=node.MASK_TH,
    )


def _post_processor(cfg: CfgNode) -> FCOSPostProcessor:
    node = cfg.MODEL.SIPMASK
    return FCOSPostProcessor(
        score_thresh=node.INFERENCE_TH,
        pre_nms_top_n=node.PRE_NMS_TOP_N,
        nms_thresh=node.NMS_TH,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
        sqrt_scores=node.SCORE_SQRT,
        threshold_on_score=node.THRESHOLD_ON == "score",
        top_k_by_location=node.TOPK_BY == "location",
        fast_nms=node.NMS_TYPE == "fast",
        fast_nms_top_k=node.FAST_NMS_TOP_K,
    )
