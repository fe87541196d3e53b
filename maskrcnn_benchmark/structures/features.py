"""What a backbone or neck gives: channels and stride of every feature map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureSpec:
    """One feature map (B, `channels`, ceil(H / `stride`), ceil(W / `stride`)) of images (B, 3, H, W)."""

    channels: int
    stride: int


FeatureSpecs = Sequence[FeatureSpec]
"""One spec per feature map, finest first."""


def common_channels(features: FeatureSpecs) -> int:
    """Channels of every feature map; ValueError when the maps differ or there is none."""
    channels = {spec.channels for spec in features}
    if len(channels) != 1:
        raise ValueError(
            f"the feature maps have {[spec.channels for spec in features]} channels, but layers that all "
            "levels share need equal ones: put a neck (FPN) behind the backbone"
        )
    return channels.pop()
