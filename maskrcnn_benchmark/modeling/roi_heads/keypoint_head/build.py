"""Keypoint head from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn_benchmark.modeling.registry import KEYPOINT_FEATURE_EXTRACTORS, KEYPOINT_PREDICTORS
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head import extractors as _extractors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head import predictors as _predictors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.head import RoIKeypointHead
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_keypoint_head(cfg: CfgNode, in_channels: int) -> RoIKeypointHead:
    """MODEL.ROI_KEYPOINT_HEAD on feature maps of `in_channels` channels.

    Raises ConfigError for SHARE_BOX_FEATURE_EXTRACTOR: no extractor serves both heads.
    """
    node = cfg.MODEL.ROI_KEYPOINT_HEAD
    if node.SHARE_BOX_FEATURE_EXTRACTOR:
        raise ConfigError(
            "MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR is True, but the keypoint head has an "
            "extractor of its own; set it to False"
        )
    extractor = KEYPOINT_FEATURE_EXTRACTORS.get(node.FEATURE_EXTRACTOR).from_cfg(cfg, in_channels)
    predictor = KEYPOINT_PREDICTORS.get(node.PREDICTOR).from_cfg(cfg, extractor.out_channels)
    return RoIKeypointHead(extractor, predictor)
