"""Box head from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.registry import BOX_FEATURE_EXTRACTORS, BOX_PREDICTORS
from maskrcnn_benchmark.modeling.roi_heads import c4 as _c4  # noqa: F401  fills the registries
from maskrcnn_benchmark.modeling.roi_heads.box_head import extractors as _extractors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.box_head import predictors as _predictors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.box_head.head import RoIBoxHead
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import BoxPostProcessor
from maskrcnn_benchmark.modeling.roi_heads.box_head.targets import BoxTargets

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_box_head(cfg: CfgNode, in_channels: int) -> RoIBoxHead:
    """MODEL.ROI_BOX_HEAD on feature maps of `in_channels` channels."""
    node = cfg.MODEL.ROI_BOX_HEAD
    extractor = BOX_FEATURE_EXTRACTORS.get(node.FEATURE_EXTRACTOR).from_cfg(cfg, in_channels)
    predictor = BOX_PREDICTORS.get(node.PREDICTOR).from_cfg(cfg, extractor.out_channels)
    box_coder = BoxCoder(cfg.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS)
    return RoIBoxHead(
        extractor,
        predictor,
        BoxTargets.from_cfg(cfg, box_coder),
        BoxPostProcessor.from_cfg(cfg, box_coder),
    )
