"""Detectors by name: MODEL.META_ARCHITECTURE -> model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from maskrcnn_benchmark.config.classes import one_stage_model
from maskrcnn_benchmark.modeling.backbones.build import build_backbone
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.modeling.heads.build import build_head
from maskrcnn_benchmark.modeling.registry import META_ARCHITECTURES
from maskrcnn_benchmark.modeling.roi_heads.build import build_roi_heads
from maskrcnn_benchmark.modeling.rpn.rpn import RegionProposalNetwork

if TYPE_CHECKING:
    from yacs.config import CfgNode


@META_ARCHITECTURES.register("GeneralizedRCNN")
def build_generalized_rcnn(cfg: CfgNode) -> GeneralizedRCNN | OneStageDetector:
    """Two-stage detector, with MODEL.RETINANET_ON, FCOS_ON or SIPMASK_ON a one-stage one (parity: published
    files name all so).

    ConfigError names keys that ask for parts which are not available.
    """
    backbone = build_backbone(cfg)
    section = one_stage_model(cfg)
    if section is not None:
        return OneStageDetector(backbone, build_head(cfg, section.lower(), backbone.feature_specs))
    rpn = RegionProposalNetwork.from_cfg(cfg, backbone.feature_specs)
    return GeneralizedRCNN(backbone, rpn, build_roi_heads(cfg, backbone.feature_specs))


def build_detection_model(cfg: CfgNode) -> Any:
    """Model of MODEL.META_ARCHITECTURE on the default device (also "meta"); ConfigError for other names.

    Weights of convolutions lie channels-last in memory, as the images will; names and shapes do not change.
    """
    model = META_ARCHITECTURES.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
