"""RoI features of the box head on an FPN (Lin et al. 2017, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import fc_norm, kaiming_uniform_init, normal_init
from maskrcnn_benchmark.modeling.norm import NormFactory, group_norm_from_cfg
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.registry import BOX_FEATURE_EXTRACTORS

if TYPE_CHECKING:
    from yacs.config import CfgNode


@BOX_FEATURE_EXTRACTORS.register("FPN2MLPFeatureExtractor")
class FPN2MLPFeatureExtractor(nn.Module):
    """Pooling, `fc6`, ReLU, `fc7`, ReLU: vectors (N, out_channels)."""

    def __init__(
        self, in_channels: int, pooler: Pooler, hidden: int, *, norm: NormFactory | None = None
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.fc6 = fc_norm(in_channels * pooler.output_size**2, hidden, norm=norm)
        self.fc7 = fc_norm(hidden, hidden, norm=norm)
        self.out_channels = hidden

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> FPN2MLPFeatureExtractor:
        """Build from MODEL.ROI_BOX_HEAD: pooling keys, MLP_HEAD_DIM, USE_GN."""
        node = cfg.MODEL.ROI_BOX_HEAD
        norm = group_norm_from_cfg(cfg) if node.USE_GN else None
        return cls(in_channels, Pooler.from_cfg(node), node.MLP_HEAD_DIM, norm=norm)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return features (sum n_i, out_channels) of xyxy boxes (n_i, 4) on levels (B, C, H_l, W_l)."""
        return self.embed(self.pooler(features, boxes))

    def embed(self, pooled: Tensor) -> Tensor:
        """Map pooled features (N, C, P, P), flattened channel-major, to (N, out_channels) >= 0."""
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1)))))


@BOX_FEATURE_EXTRACTORS.register("FPN2MLPCosineFeatureExtractor")
class FPN2MLPCosineFeatureExtractor(FPN2MLPFeatureExtractor):
    """FPN2MLPFeatureExtractor without the last ReLU, for the cosine classifier (features of either sign)."""

    def embed(self, pooled: Tensor) -> Tensor:
        """Map pooled features (N, C, P, P) to (N, out_channels) of either sign."""
        return self.fc7(F.relu(self.fc6(pooled.flatten(1))))


@BOX_FEATURE_EXTRACTORS.register("FPNXconv1fcFeatureExtractor")
class FPNXconv1fcFeatureExtractor(nn.Module):
    """Pooling, `xconvs` (3x3 convolutions with [norm] and ReLU), `fc6`, ReLU: vectors (N, out_channels)."""

    def __init__(
        self,
        in_channels: int,
        pooler: Pooler,
        *,
        conv_channels: int,
        num_convs: int,
        hidden: int,
        dilation: int = 1,
        norm: NormFactory | None = None,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        layers: list[nn.Module] = []
        channels = in_channels
        for _ in range(num_convs):
            conv = nn.Conv2d(
                channels, conv_channels, 3, padding=dilation, dilation=dilation, bias=norm is None
            )
            layers.append(normal_init(conv, std=0.01))
            if norm is not None:
                layers.append(norm(conv_channels))
            layers.append(nn.ReLU(inplace=True))
            channels = conv_channels
        self.xconvs = nn.Sequential(*layers)
        self.fc6 = kaiming_uniform_init(nn.Linear(channels * pooler.output_size**2, hidden))
        self.out_channels = hidden

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> FPNXconv1fcFeatureExtractor:
        """Build from MODEL.ROI_BOX_HEAD: pooling, convolution and MLP_HEAD_DIM keys, USE_GN."""
        node = cfg.MODEL.ROI_BOX_HEAD
        return cls(
            in_channels,
            Pooler.from_cfg(node),
            conv_channels=node.CONV_HEAD_DIM,
            num_convs=node.NUM_STACKED_CONVS,
            hidden=node.MLP_HEAD_DIM,
            dilation=node.DILATION,
            norm=group_norm_from_cfg(cfg) if node.USE_GN else None,
        )

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return features (sum n_i, out_channels) of xyxy boxes (n_i, 4) on levels (B, C, H_l, W_l)."""
        return F.relu(self.fc6(self.xconvs(self.pooler(features, boxes)).flatten(1)))
