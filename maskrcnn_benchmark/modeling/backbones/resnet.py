"""ResNet and ResNeXt backbones (He et al. 2016, Xie et al. 2017), and the one stage of a C4 box head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.backbones.blocks import BlockFactory, BlockSpec, Deformable
from maskrcnn_benchmark.structures.features import FeatureSpec


@dataclass(frozen=True)
class StageSpec:
    """One stage `layer{index}` (index 1..4): number of blocks, whether its output is returned, and its
    deformable 3x3 convolutions, if any.
    """

    index: int
    num_blocks: int
    is_output: bool
    deformable: Deformable | None = None


def stage_channels(index: int, res2_out_channels: int) -> int:
    """Output channels of stage `index` (1..4)."""
    return res2_out_channels * 2 ** (index - 1)


def build_stage(
    block: BlockFactory,
    index: int,
    num_blocks: int,
    *,
    in_channels: int,
    res2_out_channels: int,
    res2_width: int,
    dilation: int = 1,
    deformable: Deformable | None = None,
) -> nn.Sequential:
    """Sequential of residual blocks of stage `index`; stride 2 except in stage 1 and with dilation > 1.

    `res2_width` is the bottleneck width of stage 1 (groups times width per group); it doubles per stage.
    Blocks 0, n, 2n, ... are deformable, n being `deformable.interval`.
    """
    out_channels = stage_channels(index, res2_out_channels)
    width = res2_width * 2 ** (index - 1)
    first_stride = 1 if index == 1 or dilation > 1 else 2
    blocks = []
    for i in range(num_blocks):
        channels, stride = (in_channels, first_stride) if i == 0 else (out_channels, 1)
        deformed = deformable if deformable is not None and i % deformable.interval == 0 else None
        blocks.append(block(BlockSpec(channels, width, out_channels, stride, dilation, deformed)))
    return nn.Sequential(*blocks)


class ResNet(nn.Module):
    """Backbone with children `stem`, `layer1`.. ; returns the maps of the output stages, finest first.

    `feature_specs`: channels and stride per returned map.
    """

    def __init__(
        self,
        stem: nn.Module,
        block: BlockFactory,
        stages: Sequence[StageSpec],
        *,
        stem_out_channels: int,
        res2_out_channels: int,
        res2_width: int,
        freeze_at: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self._stages = tuple(stages)
        specs: list[FeatureSpec] = []
        channels = stem_out_channels
        for stage in stages:
            layer = build_stage(
                block,
                stage.index,
                stage.num_blocks,
                in_channels=channels,
                res2_out_channels=res2_out_channels,
                res2_width=res2_width,
                deformable=stage.deformable,
            )
            self.add_module(f"layer{stage.index}", layer)
            channels = stage_channels(stage.index, res2_out_channels)
            if stage.is_output:
                specs.append(FeatureSpec(channels, 2 ** (stage.index + 1)))
        self.feature_specs = tuple(specs)
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        """Stop gradients of the stem (freeze_at >= 1) and of layer1..layer{freeze_at - 1}."""
        names = ["stem", *(f"layer{stage.index}" for stage in self._stages)]
        for name in names[: max(freeze_at, 0)]:
            for parameter in self.get_submodule(name).parameters():
                parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> list of (B, C_i, H/s_i, W/s_i)."""
        outputs = []
        x = self.stem(x)
        for stage in self._stages:
            x = self.get_submodule(f"layer{stage.index}")(x)
            if stage.is_output:
                outputs.append(x)
        return outputs


class ResNetStage4(nn.Module):
    """`layer4` alone, the box head of C4 models."""

    def __init__(
        self, block: BlockFactory, num_blocks: int, *, res2_out_channels: int, res2_width: int, dilation: int
    ) -> None:
        super().__init__()
        self.layer4 = build_stage(
            block,
            4,
            num_blocks,
            in_channels=stage_channels(3, res2_out_channels),
            res2_out_channels=res2_out_channels,
            res2_width=res2_width,
            dilation=dilation,
        )
        self.out_channels = stage_channels(4, res2_out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """RoI features (N, C, 14, 14) -> (N, 2C, 7, 7), or (N, 2C, 14, 14) when dilated."""
        return self.layer4(x)
