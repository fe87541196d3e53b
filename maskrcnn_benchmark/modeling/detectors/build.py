"""Detectors by name: MODEL.META_ARCHITECTURE -> model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from maskrcnn_benchmark.config.models import model_family
from maskrcnn_benchmark.modeling.backbones.build import build_backbone
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.modeling.heads.build import build_head
from maskrcnn_benchmark.modeling.necks.build import BackboneWithNeck, build_neck
from maskrcnn_benchmark.modeling.registry import META_ARCHITECTURES
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import RoIHeads
from maskrcnn_benchmark.modeling.rpn.rpn import RegionProposalNetwork
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_features(cfg: CfgNode) -> BackboneWithNeck:
    """Build backbone and neck: MODEL.BACKBONE.CONV_BODY and MODEL.NECK.

    Raises ConfigError when the feature maps differ in channels: heads share their layers over all levels.
    """
    backbone: Any = build_backbone(cfg)
    features = BackboneWithNeck(backbone, build_neck(cfg, backbone.feature_specs))
    channels = [spec.channels for spec in features.feature_specs]
    if len(set(channels)) > 1:
        raise ConfigError(
            f"MODEL.BACKBONE.CONV_BODY {cfg.MODEL.BACKBONE.CONV_BODY} gives feature maps of {channels} "
            f"channels, but heads need equal ones on all levels: set MODEL.NECK {model_family(cfg).necks[0]}"
        )
    return features


@META_ARCHITECTURES.register("GeneralizedRCNN")
def build_generalized_rcnn(cfg: CfgNode) -> GeneralizedRCNN | OneStageDetector:
    """Build backbone, neck, and the head of a one-stage family or else RPN and RoI heads.

    Parity: published files of both kinds have this meta-architecture.
    ConfigError names keys that ask for parts which are not available.
    """
    family, features = model_family(cfg), build_features(cfg)
    if family.one_stage:
        return OneStageDetector(features, build_head(cfg, family.name, features.feature_specs))
    rpn = RegionProposalNetwork.from_cfg(cfg, features.feature_specs)
    roi_heads = RoIHeads.from_cfg(cfg, features.feature_specs) if family.roi_heads else None
    return GeneralizedRCNN(features, rpn, roi_heads)


def build_detection_model(cfg: CfgNode) -> Any:
    """Model of MODEL.META_ARCHITECTURE on the default device (also "meta"); ConfigError for other names.

    Weights of convolutions lie channels-last in memory, as the images will; names and shapes do not change.
    """
    model = META_ARCHITECTURES.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
