"""Feature pyramid network, FPN (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import conv_norm_relu, kaiming_uniform_init
from maskrcnn_benchmark.modeling.norm import NormFactory
from maskrcnn_benchmark.structures.features import FeatureSpec, FeatureSpecs


class LastLevelP6P7(nn.Module):
    """P6 and P7 by 3x3 convolutions of stride 2: `p6` of C5 or P5, `p7` of P6 behind a ReLU."""

    levels = 2

    def __init__(self, in_channels: int, out_channels: int, *, from_c5: bool) -> None:
        """in_channels: of C5 with `from_c5`, else of P5."""
        super().__init__()
        self.from_c5 = from_c5
        self.p6 = kaiming_uniform_init(nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1))
        self.p7 = kaiming_uniform_init(nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1))

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        """C5 and P5, (B, C, H, W) each -> P6 (B, out, ceil(H/2), ceil(W/2)) and P7, half of that again."""
        p6 = self.p6(c5 if self.from_c5 else p5)
        return [p6, self.p7(F.relu(p6))]


class FPN(nn.Module):
    """FPN over C2..C5 giving P2..P5 and, with `extra_pool`, P6: every second location of P5.

    Children `fpn_inner{i}` (1x1) and `fpn_layer{i}` (3x3), i = 1 for stride 4 (C2), 2 for stride 8 (C3), ...
    (parity: names in published files), and `top_blocks` for levels made by convolution. The level above is
    resized to the lateral by nearest neighbour, so sides need not be multiples of 32; for sides that are,
    this equals the published doubling.

    `feature_specs`: channels and stride per returned map.
    """

    def __init__(
        self,
        features: FeatureSpecs,
        out_channels: int,
        *,
        norm: NormFactory | None = None,
        relu: bool = False,
        extra_pool: bool = True,
        top_blocks: LastLevelP6P7 | None = None,
    ) -> None:
        """features: specs of the levels C_i that the FPN reads, finest first."""
        super().__init__()
        self.levels = [spec.stride.bit_length() - 2 for spec in features]
        self.extra_pool = extra_pool
        for i, spec in zip(self.levels, features, strict=True):
            lateral = conv_norm_relu(spec.channels, out_channels, 1, norm=norm, relu=relu)
            self.add_module(f"fpn_inner{i}", lateral)
            self.add_module(
                f"fpn_layer{i}", conv_norm_relu(out_channels, out_channels, 3, norm=norm, relu=relu)
            )
        self.top_blocks = top_blocks
        strides = [spec.stride for spec in features]
        for _ in range(extra_pool + (0 if top_blocks is None else top_blocks.levels)):
            strides.append(2 * strides[-1])
        self.feature_specs = tuple(FeatureSpec(out_channels, stride) for stride in strides)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """List of (B, C_i, H_i, W_i), finest first -> list of (B, out, H_i, W_i) and the extra levels.

        The list may begin with finer maps than the FPN reads.
        """
        results: list[Tensor] = []
        top: Tensor | None = None
        for i, feature in zip(reversed(self.levels), reversed(features), strict=False):
            lateral = self.get_submodule(f"fpn_inner{i}")(feature)
            if top is not None:
                lateral = F.interpolate(top, size=lateral.shape[-2:], mode="nearest").add_(lateral)
            top = lateral
            results.insert(0, self.get_submodule(f"fpn_layer{i}")(top))
        if self.extra_pool:
            results.append(F.max_pool2d(results[-1], kernel_size=1, stride=2))
        if self.top_blocks is not None:
            results += self.top_blocks(features[-1], results[-1])
        return results
