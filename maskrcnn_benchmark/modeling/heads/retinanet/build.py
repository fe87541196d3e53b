"""RetinaNet from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn_benchmark.modeling.anchors import AnchorGenerator, cell_anchors
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.heads.retinanet.head import RetinaNet
from maskrcnn_benchmark.modeling.heads.retinanet.loss import LossSettings, RetinaNetLoss
from maskrcnn_benchmark.modeling.heads.retinanet.postprocess import DetectionSettings, RetinaNetPostProcessor
from maskrcnn_benchmark.modeling.heads.retinanet.towers import Towers
from maskrcnn_benchmark.modeling.matcher import Matcher

if TYPE_CHECKING:
    from yacs.config import CfgNode

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""parity: factors of the regression targets."""


def build_anchors(node: CfgNode) -> AnchorGenerator:
    """From MODEL.RETINANET: every level has its size times OCTAVE^(i / SCALES_PER_OCTAVE), i = 0, 1, ..."""
    steps = [node.OCTAVE ** (i / node.SCALES_PER_OCTAVE) for i in range(node.SCALES_PER_OCTAVE)]
    cells = [
        cell_anchors(stride, [size * step for step in steps], node.ASPECT_RATIOS)
        for stride, size in zip(node.ANCHOR_STRIDES, node.ANCHOR_SIZES, strict=True)
    ]
    return AnchorGenerator(cells, node.ANCHOR_STRIDES, node.STRADDLE_THRESH)


def build_retinanet(cfg: CfgNode, in_channels: int) -> RetinaNet:
    """MODEL.RETINANET on feature maps of `in_channels` channels."""
    node = cfg.MODEL.RETINANET
    anchors, box_coder = build_anchors(node), BoxCoder(BOX_WEIGHTS)
    matcher = Matcher(
        node.FG_IOU_THRESHOLD,
        node.BG_IOU_THRESHOLD,
        allow_low_quality=True,
        zero_overlap_matches=cfg.MODEL.RPN.ZERO_OVERLAP_MATCHES,
    )
    towers = Towers(
        in_channels,
        node.NUM_CLASSES - 1,
        anchors.num_anchors_per_location()[0],
        depth=node.NUM_CONVS,
        prior_probability=node.PRIOR_PROB,
    )
    return RetinaNet(
        anchors,
        towers,
        RetinaNetLoss(
            matcher,
            box_coder,
            LossSettings(node.LOSS_GAMMA, node.LOSS_ALPHA, node.BBOX_REG_BETA, node.BBOX_REG_WEIGHT),
        ),
        RetinaNetPostProcessor(
            box_coder,
            DetectionSettings(
                node.INFERENCE_TH, node.PRE_NMS_TOP_N, node.NMS_TH, cfg.TEST.DETECTIONS_PER_IMG
            ),
        ),
    )
