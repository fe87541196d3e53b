"""Region heads from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn_benchmark.modeling.roi_heads.box_head.build import build_box_head
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.build import build_keypoint_head
from maskrcnn_benchmark.modeling.roi_heads.mask_head.build import build_mask_head
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import RoIHeads, build_weight_transfer
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_roi_heads(cfg: CfgNode, features: FeatureSpecs) -> RoIHeads:
    """Box head, with MODEL.MASK_ON and MODEL.KEYPOINT_ON those heads.

    Raises ConfigError for distillation without a cosine classifier.
    """
    in_channels = common_channels(features)
    box = build_box_head(cfg, in_channels)
    mask = build_mask_head(cfg, in_channels, box.feature_extractor) if cfg.MODEL.MASK_ON else None
    keypoint = build_keypoint_head(cfg, in_channels) if cfg.MODEL.KEYPOINT_ON else None
    transfer = None
    if mask is not None and cfg.MODEL.ROI_MASK_HEAD.USE_BBOX2MASK:
        rows = box.classifier_rows().shape[1]
        transfer = build_weight_transfer(rows, cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS[-1])
    if cfg.MODEL.USE_DISTILL and cfg.MODEL.NUM_DISTILL_CLASSES >= cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES:
        raise ConfigError(
            f"MODEL.NUM_DISTILL_CLASSES {cfg.MODEL.NUM_DISTILL_CLASSES} old classes do not fit into "
            f"MODEL.ROI_BOX_HEAD.NUM_CLASSES {cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES} (with background)"
        )
    if cfg.MODEL.USE_DISTILL and not hasattr(box.predictor, "cosine"):
        raise ConfigError(
            "MODEL.USE_DISTILL needs MODEL.ROI_BOX_HEAD.PREDICTOR FPNCosinePredictor, "
            f"got {cfg.MODEL.ROI_BOX_HEAD.PREDICTOR}"
        )
    return RoIHeads(
        box,
        mask,
        transfer,
        keypoint,
        num_old_classes=cfg.MODEL.NUM_DISTILL_CLASSES if cfg.MODEL.USE_DISTILL else None,
        distill_weight=cfg.LST.DISTILL.WEIGHT,
    )
