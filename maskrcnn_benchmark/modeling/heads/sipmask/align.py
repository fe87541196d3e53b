"""Feature alignment: class features are read where the box is (SipMask section 3.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.deform_conv import DeformConv2d
from maskrcnn_benchmark.modeling.heads.fcos.towers import GROUPS, STD

OFFSET_GROUPS = 4
"""parity: groups of channels that move together."""
TAPS = 9


class FeatureAlign(nn.Module):
    """Deformable 3x3 convolution whose offsets are a linear map of the predicted distances.

    Children `conv_offset`, `conv_adaption`, `norm` (parity). Without `normalised` the norm is held, because
    published files have it, but neither applied nor trained.
    """

    def __init__(self, channels: int, *, normalised: bool, bias: bool) -> None:
        super().__init__()
        self.normalised = normalised
        self.conv_offset = nn.Conv2d(4, OFFSET_GROUPS * 2 * TAPS, 1, bias=False)
        nn.init.zeros_(self.conv_offset.weight)
        self.conv_adaption = DeformConv2d(channels, channels, 3, padding=1, bias=bias)
        nn.init.normal_(self.conv_adaption.weight, std=STD)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.norm.requires_grad_(normalised)

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        """x (B,C,H,W), distances (B,4,H,W) in strides, whose gradient ends here -> (B,C,H,W)."""
        y = self.conv_adaption(x, self.conv_offset(distances.detach()))
        return F.relu(self.norm(y) if self.normalised else y)
