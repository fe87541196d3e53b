"""Feature pyramid (Lin et al. 2017; core spec 6)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import conv_norm_relu
from maskrcnn_benchmark.modeling.norm import NormFactory


class FPN(nn.Module):
    """Top-down pyramid over C2..C5 giving P2..P5 and, with `extra_pool`, P6 = every second cell of P5.

    Children `fpn_inner{i}` (1x1) and `fpn_layer{i}` (3x3), i = 1.. from the finest level. The level above is
    brought to the size of the lateral by nearest neighbours, so sides need not be multiples of 32; for sides
    that are, this equals the published doubling.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        *,
        norm: NormFactory | None = None,
        relu: bool = False,
        extra_pool: bool = True,
    ) -> None:
        super().__init__()
        self.num_levels = len(in_channels)
        self.extra_pool = extra_pool
        for i, channels in enumerate(in_channels, start=1):
            self.add_module(f"fpn_inner{i}", conv_norm_relu(channels, out_channels, 1, norm=norm, relu=relu))
            self.add_module(
                f"fpn_layer{i}", conv_norm_relu(out_channels, out_channels, 3, norm=norm, relu=relu)
            )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """List of (B,C_i,H_i,W_i), finest first -> list of (B,out,H_i,W_i), one more with `extra_pool`."""
        results: list[Tensor] = []
        top: Tensor | None = None
        for i in range(self.num_levels, 0, -1):
            lateral = self.get_submodule(f"fpn_inner{i}")(features[i - 1])
            if top is not None:
                lateral = F.interpolate(top, size=lateral.shape[-2:], mode="nearest").add_(lateral)
            top = lateral
            results.insert(0, self.get_submodule(f"fpn_layer{i}")(top))
        if self.extra_pool:
            results.append(F.max_pool2d(results[-1], kernel_size=1, stride=2))
        return results
