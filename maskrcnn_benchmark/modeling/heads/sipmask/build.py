"""SipMask from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn_benchmark.modeling.heads.fcos.candidates import CandidateSettings
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss, LossSettings
from maskrcnn_benchmark.modeling.heads.fcos.suppress import SuppressionSettings
from maskrcnn_benchmark.modeling.heads.fcos.towers import TowerStyle
from maskrcnn_benchmark.modeling.heads.sipmask.head import DetectionSettings, SipMask
from maskrcnn_benchmark.modeling.heads.sipmask.mask_loss import MaskLossSettings
from maskrcnn_benchmark.modeling.heads.sipmask.towers import SipMaskTowers

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_sipmask(cfg: CfgNode, in_channels: int) -> SipMask:
    """MODEL.SIPMASK on feature maps of `in_channels` channels."""
    node = cfg.MODEL.SIPMASK
    towers = SipMaskTowers(
        in_channels,
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
