"""Stems and residual blocks of ResNet (He et al. 2016).

Children are created in the order of the published state dicts: `downsample`, then conv1, bn1, conv2, bn2, ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.layers.norm import conv_norm
from maskrcnn_benchmark.modeling.conv import kaiming_uniform_init
from maskrcnn_benchmark.modeling.norm import NormFactory, frozen_norm_from_cfg, group_norm_from_cfg
from maskrcnn_benchmark.modeling.registry import STEMS, TRANSFORMATIONS
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


@dataclass(frozen=True)
class Deformable:
    """Deformable 3x3 convolutions of a stage: offset groups, whether they are modulated (v2), and in which
    blocks: every `interval`-th, from the first.
    """

    groups: int = 1
    modulated: bool = False
    interval: int = 1


@dataclass(frozen=True)
class BlockSpec:
    """Channels and geometry of one residual block; `bottleneck_channels` of all groups together."""

    in_channels: int
    bottleneck_channels: int
    out_channels: int
    stride: int = 1
    dilation: int = 1
    deformable: Deformable | None = None


BlockFactory = Callable[[BlockSpec], nn.Module]


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel - 1) // 2
    layer = nn.Conv2d(cin, cout, kernel, stride, padding, dilation=dilation, groups=groups, bias=False)
    return kaiming_uniform_init(layer)


def _conv3x3(spec: BlockSpec, width: int, stride: int, groups: int) -> nn.Conv2d | DFConv2d:
    if spec.deformable is None:
        return _conv(width, width, 3, stride, spec.dilation, groups)
    if width % spec.deformable.groups:
        raise ConfigError(
            f"MODEL.RESNETS.DEFORMABLE_GROUPS: {spec.deformable.groups} groups do not divide the {width} "
            "channels of a deformable 3x3 convolution"
        )
    return DFConv2d(
        width,
        width,
        3,
        stride=stride,
        padding=spec.dilation,
        dilation=spec.dilation,
        groups=groups,
        deformable_groups=spec.deformable.groups,
        modulated=spec.deformable.modulated,
    )


class ConvNorm(nn.Sequential):
    """Children `0`, a convolution, and `1`, its norm."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__(conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution and norm: (B, in, H, W) -> (B, out, H/stride, W/stride).

        Frozen statistics are folded into the convolution.
        """
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        return conv_norm(conv, self[1], x)


def _shortcut(spec: BlockSpec, norm: NormFactory) -> nn.Module:
    if spec.in_channels == spec.out_channels and spec.stride == 1:
        return nn.Identity()
    return ConvNorm(_conv(spec.in_channels, spec.out_channels, 1, spec.stride), norm(spec.out_channels))


class Stem(nn.Module):
    """7x7/2 convolution, norm, ReLU, 3x3/2 max pooling."""

    def __init__(self, out_channels: int, norm: NormFactory) -> None:
        super().__init__()
        self.conv1 = _conv(3, out_channels, 7, stride=2)
        self.bn1 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to features (B, C, ceil(H/4), ceil(W/4))."""
        x = F.relu_(conv_norm(self.conv1, self.bn1, x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 block with a shortcut (He et al. 2016, section 4.1).

    The stride sits in the first 1x1 with `stride_in_1x1` (MSRA weights), else in the 3x3 (ResNeXt,
    torchvision). The 3x3 may be deformable (`spec.deformable`).
    """

    def __init__(self, spec: BlockSpec, *, norm: NormFactory, groups: int, stride_in_1x1: bool) -> None:
        super().__init__()
        self.downsample = _shortcut(spec, norm)
        first, second = (spec.stride, 1) if stride_in_1x1 else (1, spec.stride)
        width = spec.bottleneck_channels
        self.conv1 = _conv(spec.in_channels, width, 1, first)
        self.bn1 = norm(width)
        self.conv2 = _conv3x3(spec, width, second, groups)
        self.bn2 = norm(width)
        self.conv3 = _conv(width, spec.out_channels, 1)
        self.bn3 = norm(spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Residual mapping, ReLU after the sum: (B, in, H, W) -> (B, out, H/stride, W/stride)."""
        shortcut = self.downsample(x)
        x = F.relu_(conv_norm(self.conv1, self.bn1, x))
        x = F.relu_(conv_norm(self.conv2, self.bn2, x))
        return _add_relu(conv_norm(self.conv3, self.bn3, x), shortcut)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18 style); `spec.bottleneck_channels` is not used."""

    def __init__(self, spec: BlockSpec, *, norm: NormFactory) -> None:
        super().__init__()
        if spec.deformable is not None:
            raise ConfigError(
                "MODEL.RESNETS.STAGE_WITH_DCN: only bottleneck blocks have the one 3x3 convolution that "
                "becomes deformable; set MODEL.RESNETS.TRANS_FUNC to a Bottleneck or the stages to False"
            )
        self.downsample = _shortcut(spec, norm)
        self.conv1 = _conv(spec.in_channels, spec.out_channels, 3, spec.stride, spec.dilation)
        self.bn1 = norm(spec.out_channels)
        self.conv2 = _conv(spec.out_channels, spec.out_channels, 3, 1, spec.dilation)
        self.bn2 = norm(spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Residual mapping, ReLU after the sum: (B, in, H, W) -> (B, out, H/stride, W/stride)."""
        shortcut = self.downsample(x)
        x = F.relu_(conv_norm(self.conv1, self.bn1, x))
        return _add_relu(conv_norm(self.conv2, self.bn2, x), shortcut)


def _add_relu(x: Tensor, shortcut: Tensor) -> Tensor:
    # in place: no norm here needs its output for the backward pass, and autograd would refuse if one did
    return F.relu_(x.add_(shortcut))


def _bottleneck_factory(cfg: CfgNode, norm: NormFactory) -> BlockFactory:
    groups, in_1x1 = cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.STRIDE_IN_1X1
    return lambda spec: Bottleneck(spec, norm=norm, groups=groups, stride_in_1x1=in_1x1)


@TRANSFORMATIONS.register("BottleneckWithFixedBatchNorm")
def bottleneck_with_fixed_batch_norm(cfg: CfgNode) -> BlockFactory:
    """Bottleneck blocks with frozen batch norm."""
    return _bottleneck_factory(cfg, frozen_norm_from_cfg(cfg))


@TRANSFORMATIONS.register("BottleneckWithGN")
def bottleneck_with_gn(cfg: CfgNode) -> BlockFactory:
    """Bottleneck blocks with group norm."""
    return _bottleneck_factory(cfg, group_norm_from_cfg(cfg))


@TRANSFORMATIONS.register("BasicBlockWithFixedBatchNorm")
def basic_block_with_fixed_batch_norm(cfg: CfgNode) -> BlockFactory:
    """Basic blocks with frozen batch norm."""
    norm = frozen_norm_from_cfg(cfg)
    return lambda spec: BasicBlock(spec, norm=norm)


@TRANSFORMATIONS.register("BasicBlockWithGN")
def basic_block_with_gn(cfg: CfgNode) -> BlockFactory:
    """Basic blocks with group norm."""
    norm = group_norm_from_cfg(cfg)
    return lambda spec: BasicBlock(spec, norm=norm)


@STEMS.register("StemWithFixedBatchNorm")
def stem_with_fixed_batch_norm(cfg: CfgNode) -> Stem:
    """Stem with frozen batch norm."""
    return Stem(cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, frozen_norm_from_cfg(cfg))


@STEMS.register("StemWithGN")
def stem_with_gn(cfg: CfgNode) -> Stem:
    """Stem with group norm."""
    return Stem(cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, group_norm_from_cfg(cfg))
