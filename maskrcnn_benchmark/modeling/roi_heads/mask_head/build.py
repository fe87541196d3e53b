"""Mask head from a config."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import nn

from maskrcnn_benchmark.modeling.registry import MASK_FEATURE_EXTRACTORS, MASK_PREDICTORS
from maskrcnn_benchmark.modeling.roi_heads import c4 as _c4  # noqa: F401  fills the registries
from maskrcnn_benchmark.modeling.roi_heads.mask_head import extractors as _extractors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.mask_head import predictors as _predictors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.mask_head.head import RoIMaskHead
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode

logger = logging.getLogger(__name__)

TRANSFER_PREDICTOR = "MaskXRCNNC4Predictor"


def _predictor_name(cfg: CfgNode) -> str:
    """parity: published LST files name MaskRCNNC4Predictor, and USE_BBOX2MASK makes it the transfer one."""
    node = cfg.MODEL.ROI_MASK_HEAD
    key = "MODEL.ROI_MASK_HEAD"
    if node.PREDICTOR == TRANSFER_PREDICTOR and not node.USE_BBOX2MASK:
        raise ConfigError(f"{key}.PREDICTOR {TRANSFER_PREDICTOR} needs {key}.USE_BBOX2MASK True")
    if node.USE_BBOX2MASK and node.PREDICTOR not in (TRANSFER_PREDICTOR, "MaskRCNNC4Predictor"):
        raise ConfigError(
            f"{key}.USE_BBOX2MASK works with PREDICTOR {TRANSFER_PREDICTOR}, not {node.PREDICTOR}"
        )
    if node.USE_MLPMASK and not node.USE_BBOX2MASK:
        raise ConfigError(f"{key}.USE_MLPMASK needs {key}.USE_BBOX2MASK True")
    if node.USE_BBOX2MASK and node.PREDICTOR != TRANSFER_PREDICTOR:
        logger.info(
            "mask predictor %s: masks come from classifier weights (USE_BBOX2MASK)", TRANSFER_PREDICTOR
        )
        return TRANSFER_PREDICTOR
    return node.PREDICTOR


def build_mask_head(cfg: CfgNode, in_channels: int, box_feature_extractor: nn.Module) -> RoIMaskHead:
    """MODEL.ROI_MASK_HEAD on feature maps of `in_channels` channels.

    With SHARE_BOX_FEATURE_EXTRACTOR the box head's extractor is used (it must give maps: C4 models).
    """
    node = cfg.MODEL.ROI_MASK_HEAD
    if node.SHARE_BOX_FEATURE_EXTRACTOR:
        if cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR != node.FEATURE_EXTRACTOR:
            raise ConfigError(
                "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR is True, but the FEATURE_EXTRACTOR of the "
                f"box head ({cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR}) and of the mask head "
                f"({node.FEATURE_EXTRACTOR}) differ; set it to False"
            )
        extractor = box_feature_extractor
    else:
        extractor = MASK_FEATURE_EXTRACTORS.get(node.FEATURE_EXTRACTOR).from_cfg(cfg, in_channels)
    predictor = MASK_PREDICTORS.get(_predictor_name(cfg)).from_cfg(cfg, extractor.out_channels)
    return RoIMaskHead(
        extractor,
        predictor,
        resolution=node.RESOLUTION,
        shares_box_features=node.SHARE_BOX_FEATURE_EXTRACTOR,
        paste_threshold=node.POSTPROCESS_MASKS_THRESHOLD if node.POSTPROCESS_MASKS else None,
    )
