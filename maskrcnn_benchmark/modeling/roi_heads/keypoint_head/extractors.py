"""Region features of the keypoint head (core spec 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import conv_norm_relu
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.registry import KEYPOINT_FEATURE_EXTRACTORS

if TYPE_CHECKING:
    from yacs.config import CfgNode


@KEYPOINT_FEATURE_EXTRACTORS.register("KeypointRCNNFeatureExtractor")
class KeypointRCNNFeatureExtractor(nn.Module):
    """Pooling and 3x3 convolutions `conv_fcn1`.. with ReLU: maps (N, out_channels, P, P)."""

    def __init__(self, in_channels: int, pooler: Pooler, conv_channels: Sequence[int]) -> None:
        super().__init__()
        self.pooler = pooler
        self.num_convs = len(conv_channels)
        self.out_channels = in_channels
        for i, channels in enumerate(conv_channels, start=1):
            layer = conv_norm_relu(self.out_channels, channels, 3, relu_init=True)
            self.add_module(f"conv_fcn{i}", layer)
            self.out_channels = channels

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> KeypointRCNNFeatureExtractor:
        """From MODEL.ROI_KEYPOINT_HEAD: pooling keys, CONV_LAYERS."""
        node = cfg.MODEL.ROI_KEYPOINT_HEAD
        return cls(in_channels, Pooler.from_cfg(node), node.CONV_LAYERS)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Levels (B,C,H_l,W_l) and per-image xyxy boxes (n_i,4) -> (sum n_i, out_channels, P, P)."""
        x = self.pooler(features, boxes)
        for i in range(1, self.num_convs + 1):
            x = F.relu_(self.get_submodule(f"conv_fcn{i}")(x))
        return x
