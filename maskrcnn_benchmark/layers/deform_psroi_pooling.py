"""Deformable position-sensitive pooling of regions (Dai et al. 2017, section 2.2; core spec 16)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers._ops import load_ops


def deform_psroi_pooling(
    features: Tensor,
    rois: Tensor,
    trans: Tensor | None = None,
    *,
    spatial_scale: float,
    output_dim: int,
    pooled_size: int,
    group_size: int = 1,
    part_size: int | None = None,
    sample_per_part: int = 4,
    trans_std: float = 0.0,
) -> Tensor:
    """Average of bilinear samples per bin: (R, output_dim, pooled_size, pooled_size).

    features: (B, output_dim * group_size^2, H, W); a bin reads only the channels of its place in a grid of
    group_size^2. rois: (R,5) rows (image index, x1, y1, x2, y2) in image coordinates, rounded to whole
    pixels, then scaled; x2 and y2 are inclusive. trans: (R, 2 * classes, part_size, part_size), shifts of the
    bins, first horizontal, then vertical, in sides of the region times `trans_std`; the output channels are
    cut into as many classes. part_size defaults to pooled_size. A bin takes sample_per_part^2 samples; those
    more than half a cell outside the map do not count, a bin without any is 0. A NaN or infinite region or
    shift gives NaN. Half precision is summed in float32; pass `rois` in float32. Differentiable in features
    and trans; on CUDA with `torch.use_deterministic_algorithms` the backward pass is refused. Raises
    ValueError (shapes, devices, ranges, on the CPU image indices) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.deform_psroi_pooling(
        features,
        rois,
        trans,
        float(spatial_scale),
        output_dim,
        group_size,
        pooled_size,
        pooled_size if part_size is None else part_size,
        sample_per_part,
        float(trans_std),
    )


class DeformPSRoIPooling(nn.Module):
    """`deform_psroi_pooling` with fixed settings; shifts come from the caller."""

    def __init__(
        self,
        spatial_scale: float,
        pooled_size: int,
        output_dim: int,
        *,
        group_size: int = 1,
        part_size: int | None = None,
        sample_per_part: int = 4,
        trans_std: float = 0.0,
    ) -> None:
        super().__init__()
        self.spatial_scale = spatial_scale
        self.pooled_size = pooled_size
        self.output_dim = output_dim
        self.group_size = group_size
        self.part_size = part_size
        self.sample_per_part = sample_per_part
        self.trans_std = trans_std

    def forward(self, features: Tensor, rois: Tensor, trans: Tensor | None = None) -> Tensor:
        """(B,C,H,W), (R,5), (R, 2 * classes, part, part) -> (R, output_dim, pooled, pooled)."""
        return deform_psroi_pooling(
            features,
            rois,
            trans,
            spatial_scale=self.spatial_scale,
            output_dim=self.output_dim,
            pooled_size=self.pooled_size,
            group_size=self.group_size,
            part_size=self.part_size,
            sample_per_part=self.sample_per_part,
            trans_std=self.trans_std,
        )

    def extra_repr(self) -> str:
        """Settings for printing."""
        return (
            f"{self.pooled_size}, scale={self.spatial_scale}, output_dim={self.output_dim}, "
            f"group_size={self.group_size}, trans_std={self.trans_std}"
        )


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DeformPSRoIPoolingPack(DeformPSRoIPooling):
    """Pooling that learns its shifts: `offset_fc` reads the undeformed regions and gives one shift per bin.

    With `modulated`, `mask_fc` also gives a factor per bin (Zhu et al. 2019). parity: layers `offset_fc.0`,
    `.2`, `.4` and `mask_fc.0`, `.2`; the last ones start at zero, so that no bin moves at first.
    """

    def __init__(
        self,
        spatial_scale: float,
        pooled_size: int,
        output_dim: int,
        *,
        group_size: int = 1,
        sample_per_part: int = 4,
        trans_std: float = 0.1,
        fc_channels: int = 1024,
        modulated: bool = False,
    ) -> None:
        super().__init__(
            spatial_scale,
            pooled_size,
            output_dim,
            group_size=group_size,
            sample_per_part=sample_per_part,
            trans_std=trans_std,
        )
        bins = pooled_size * pooled_size
        self.offset_fc = nn.Sequential(
            nn.Linear(bins * output_dim, fc_channels),
            nn.ReLU(inplace=True),
            nn.Linear(fc_channels, fc_channels),
            nn.ReLU(inplace=True),
            _zero(nn.Linear(fc_channels, 2 * bins)),
        )
        self.mask_fc = (
            nn.Sequential(
                nn.Linear(bins * output_dim, fc_channels),
                nn.ReLU(inplace=True),
                _zero(nn.Linear(fc_channels, bins)),
                nn.Sigmoid(),
            )
            if modulated
            else None
        )

    def forward(self, features: Tensor, rois: Tensor, trans: Tensor | None = None) -> Tensor:
        """(B,C,H,W), (R,5) -> (R, output_dim, pooled, pooled). Raises ValueError when `trans` is given."""
        if trans is not None:
            raise ValueError("DeformPSRoIPoolingPack computes its shifts itself; leave out trans")
        plain = super().forward(features, rois).flatten(1)
        side = (self.pooled_size, self.pooled_size)
        pooled = super().forward(features, rois, self.offset_fc(plain).view(-1, 2, *side))
        return pooled if self.mask_fc is None else pooled * self.mask_fc(plain).view(-1, 1, *side)
