"""RoI features of the mask head on an FPN (He et al. 2017, section 3, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import conv_norm_relu
from maskrcnn_benchmark.modeling.norm import NormFactory, group_norm_from_cfg
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.registry import MASK_FEATURE_EXTRACTORS

if TYPE_CHECKING:
    from yacs.config import CfgNode


@MASK_FEATURE_EXTRACTORS.register("MaskRCNNFPNFeatureExtractor")
class MaskRCNNFPNFeatureExtractor(nn.Module):
    """RoIAlign and 3x3 convolutions `mask_fcn1`, ... with optional norm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        pooler: Pooler,
        conv_channels: Sequence[int],
        *,
        dilation: int = 1,
        norm: NormFactory | None = None,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.num_convs = len(conv_channels)
        self.out_channels = in_channels
        for i, channels in enumerate(conv_channels, start=1):
            layer = conv_norm_relu(
                self.out_channels, channels, 3, dilation=dilation, norm=norm, relu_init=True
            )
            self.add_module(f"mask_fcn{i}", layer)
            self.out_channels = channels

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> MaskRCNNFPNFeatureExtractor:
        """Build from MODEL.ROI_MASK_HEAD: pooling keys, CONV_LAYERS, DILATION, USE_GN."""
        node = cfg.MODEL.ROI_MASK_HEAD
        norm = group_norm_from_cfg(cfg) if node.USE_GN else None
        return cls(in_channels, Pooler.from_cfg(node), node.CONV_LAYERS, dilation=node.DILATION, norm=norm)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return maps (sum n_i, out_channels, P, P) of xyxy boxes (n_i, 4) on levels (B, C, H_l, W_l)."""
        x = self.pooler(features, boxes)
        for i in range(1, self.num_convs + 1):
            x = F.relu_(self.get_submodule(f"mask_fcn{i}")(x))
        return x
