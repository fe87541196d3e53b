"""FCOS from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn_benchmark.modeling.heads.fcos.candidates import CandidateSettings
from maskrcnn_benchmark.modeling.heads.fcos.head import FCOS
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss, LossSettings
from maskrcnn_benchmark.modeling.heads.fcos.suppress import SuppressionSettings
from maskrcnn_benchmark.modeling.heads.fcos.towers import FCOSTowers, TowerStyle

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_fcos(cfg: CfgNode, in_channels: int) -> FCOS:
    """MODEL.FCOS on feature maps of `in_channels` channels."""
    node = cfg.MODEL.FCOS
    towers = FCOSTowers(
        in_channels,
        node.NUM_CLASSES - 1,
        depth=node.NUM_CONVS,
        levels=len(node.FPN_STRIDES),
        prior_probability=node.PRIOR_PROB,
        rectified=node.NORM_REG_TARGETS,
        centerness_on_boxes=node.CENTERNESS_ON_REG,
        style=TowerStyle(deformable=node.USE_DCN_IN_TOWER),
    )
    return FCOS(
        towers,
        node.FPN_STRIDES,
        FCOSLoss(
            node.FPN_STRIDES,
            LossSettings(node.LOSS_GAMMA, node.LOSS_ALPHA, node.IOU_LOSS_TYPE, node.CENTER_SAMPLING_RADIUS),
        ),
        CandidateSettings(node.INFERENCE_TH, node.PRE_NMS_TOP_N),
        SuppressionSettings(node.NMS_TH, cfg.TEST.DETECTIONS_PER_IMG),
    )
