"""Necks by name: MODEL.NECK, or the published ending of MODEL.BACKBONE.CONV_BODY."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from torch import nn

from maskrcnn_benchmark.config.compat import NO_NECK, top_levels_from_c5
from maskrcnn_benchmark.config.models import model_neck
from maskrcnn_benchmark.modeling.necks.fpn import FPN, LastLevelP6P7
from maskrcnn_benchmark.modeling.norm import NormFactory, group_norm_from_cfg
from maskrcnn_benchmark.modeling.registry import NECKS
from maskrcnn_benchmark.structures.features import FeatureSpec, FeatureSpecs, common_channels

if TYPE_CHECKING:
    from yacs.config import CfgNode


class BackboneWithNeck(nn.Sequential):
    """Children `backbone.body` and, with a neck, `backbone.fpn` (parity: their names in published files).

    Call: images (B, 3, H, W) -> list of feature maps, finest first. `feature_specs`: channels and stride of
    every map.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module | None) -> None:
        parts = [("body", backbone), *([] if neck is None else [("fpn", neck)])]
        super().__init__(OrderedDict(parts))
        last: Any = backbone if neck is None else neck
        self.feature_specs: tuple[FeatureSpec, ...] = tuple(last.feature_specs)

    @property
    def out_channels(self) -> int:
        """Channels of every returned map; ValueError when they differ."""
        return common_channels(self.feature_specs)


def _norm(cfg: CfgNode) -> NormFactory | None:
    return group_norm_from_cfg(cfg) if cfg.MODEL.FPN.USE_GN else None


@NECKS.register("fpn")
def build_fpn(cfg: CfgNode, features: FeatureSpecs) -> FPN:
    """P2..P6 of C2..C5; P6 is every second location of P5."""
    width = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    return FPN(features, width, norm=_norm(cfg), relu=cfg.MODEL.FPN.USE_RELU, extra_pool=True)


@NECKS.register("fpn_p6p7")
def build_fpn_p6p7(cfg: CfgNode, features: FeatureSpecs) -> FPN:
    """P3..P7 of C3..C5; P6 and P7 are convolutions of C5 or P5 (Lin et al. 2017, Focal Loss, section 4)."""
    width, from_c5 = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS, top_levels_from_c5(cfg)
    top = LastLevelP6P7(features[-1].channels if from_c5 else width, width, from_c5=from_c5)
    return FPN(
        features[-3:],
        width,
        norm=_norm(cfg),
        relu=cfg.MODEL.FPN.USE_RELU,
        extra_pool=False,
        top_blocks=top,
    )


@NECKS.register(NO_NECK)
def build_no_neck(cfg: CfgNode, features: FeatureSpecs) -> None:
    """No neck: the head reads the backbone's feature maps."""
    return


def build_neck(cfg: CfgNode, features: FeatureSpecs) -> nn.Module | None:
    """Build the neck of a config for the feature maps of a backbone; ConfigError lists close names."""
    neck: nn.Module | None = NECKS.get(model_neck(cfg))(cfg, features)
    return neck
