"""RoI features of C4 models: RoIAlign at stride 16, then ResNet stage 4 (He et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.backbones.resnet import ResNetStage4, stage_channels
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.registry import (
    BOX_FEATURE_EXTRACTORS,
    MASK_FEATURE_EXTRACTORS,
    TRANSFORMATIONS,
)
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode

STAGE4_BLOCKS = 3
"""Blocks in stage 4 of all published C4 backbones (R-50, R-101)."""


@BOX_FEATURE_EXTRACTORS.register("ResNet50Conv5ROIFeatureExtractor")
class ResNet50Conv5ROIFeatureExtractor(nn.Module):
    """RoIAlign and stage 4 (child `head.layer4`): maps of side P/2 for pooled size P (P when dilated)."""

    node: ClassVar[str] = "ROI_BOX_HEAD"

    def __init__(self, pooler: Pooler, head: ResNetStage4) -> None:
        super().__init__()
        self.pooler = pooler
        self.head = head
        self.out_channels = head.out_channels

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> ResNet50Conv5ROIFeatureExtractor:
        """Build from MODEL.RESNETS and the POOLER_* keys of the head's node."""
        node = cfg.MODEL.RESNETS
        expected = stage_channels(3, node.RES2_OUT_CHANNELS)
        if in_channels != expected:
            raise ConfigError(
                f"MODEL.{cls.node}.FEATURE_EXTRACTOR ResNet50Conv5ROIFeatureExtractor continues a C4 "
                f"backbone of {expected} channels, but MODEL.BACKBONE.CONV_BODY "
                f"{cfg.MODEL.BACKBONE.CONV_BODY} gives {in_channels}"
            )
        head = ResNetStage4(
            TRANSFORMATIONS.get(node.TRANS_FUNC)(cfg),
            STAGE4_BLOCKS,
            res2_out_channels=node.RES2_OUT_CHANNELS,
            res2_width=node.NUM_GROUPS * node.WIDTH_PER_GROUP,
            dilation=node.RES5_DILATION,
        )
        return cls(Pooler.from_cfg(cfg.MODEL[cls.node]), head)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return maps (sum n_i, out_channels, P/2, P/2) of xyxy boxes (n_i, 4) on the map [(B, C, H, W)]."""
        return self.head(self.pooler(features, boxes))


@MASK_FEATURE_EXTRACTORS.register("ResNet50Conv5ROIFeatureExtractor")
class ResNet50Conv5MaskFeatureExtractor(ResNet50Conv5ROIFeatureExtractor):
    """The extractor with the pooling keys of the mask head, when box and mask head do not share one."""

    node: ClassVar[str] = "ROI_MASK_HEAD"
