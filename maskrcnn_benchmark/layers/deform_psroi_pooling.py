"""Deformable position-sensitive RoI pooling (Dai et al. 2017, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.utils.native import load_ops, register_op


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

    features: (B, output_dim * group_size^2, H, W); a bin reads only the channels of its position in a grid of
    group_size^2. rois: (R, 5) rows (image index, x1, y1, x2, y2) in image coordinates, rounded to whole
    pixels, then scaled; x2 and y2 are inclusive. trans: (R, 2 * classes, part_size, part_size), shifts of the
    bins, first horizontal, then vertical, in sides of the RoI times `trans_std`; the output channels are
    cut into as many classes. part_size defaults to pooled_size. A bin takes sample_per_part^2 samples; those
    more than half a feature pixel outside the map do not count, a bin without any is 0. An RoI or a shift
    with a NaN or an infinite value gives NaN. Half precision is summed in float32; pass `rois` in float32.
    Differentiable in features and trans; on CUDA with `torch.use_deterministic_algorithms` the backward pass
    is refused. Raises ValueError (shapes, devices, ranges, on the CPU image indices) and TypeError (dtypes).
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
    """`deform_psroi_pooling` with fixed arguments; the shifts come from the caller."""

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
        """(B, C, H, W), (R, 5), (R, 2 * classes, part, part) -> (R, output_dim, pooled, pooled)."""
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
        """Arguments for printing."""
        return (
            f"{self.pooled_size}, scale={self.spatial_scale}, output_dim={self.output_dim}, "
            f"group_size={self.group_size}, trans_std={self.trans_std}"
        )


def _zero_initialised(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DeformPSRoIPoolingPack(DeformPSRoIPooling):
    """Pooling that predicts its shifts: `offset_fc` maps the undeformed RoI features to one shift per bin.

    With `modulated`, `mask_fc` also predicts a factor per bin (Zhu et al. 2019, section 3.2).
    parity: layers `offset_fc.0`, `.2`, `.4` and `mask_fc.0`, `.2`; the last ones start at zero, so that no
    bin moves at first.
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
            _zero_initialised(nn.Linear(fc_channels, 2 * bins)),
        )
        self.mask_fc = (
            nn.Sequential(
                nn.Linear(bins * output_dim, fc_channels),
                nn.ReLU(inplace=True),
                _zero_initialised(nn.Linear(fc_channels, bins)),
                nn.Sigmoid(),
            )
            if modulated
            else None
        )

    def forward(self, features: Tensor, rois: Tensor, trans: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (R, 5) -> (R, output_dim, pooled, pooled). Raises ValueError if `trans` is given."""
        if trans is not None:
            raise ValueError("DeformPSRoIPoolingPack computes its shifts itself; leave out trans")
        plain = super().forward(features, rois).flatten(1)
        side = (self.pooled_size, self.pooled_size)
        pooled = super().forward(features, rois, self.offset_fc(plain).view(-1, 2, *side))
        return pooled if self.mask_fc is None else pooled * self.mask_fc(plain).view(-1, 1, *side)


def _deform_psroi_pooling_fake(
    features: Tensor,
    rois: Tensor,
    trans: Tensor | None,
    spatial_scale: float,
    output_dim: int,
    group_size: int,
    pooled_size: int,
    part_size: int,
    sample_per_part: int,
    trans_std: float,
) -> Tensor:
    return features.new_empty((rois.shape[0], output_dim, pooled_size, pooled_size))


def _deform_psroi_pooling_backward_fake(
    grad: Tensor,
    features: Tensor,
    rois: Tensor,
    trans: Tensor | None,
    spatial_scale: float,
    output_dim: int,
    group_size: int,
    pooled_size: int,
    part_size: int,
    sample_per_part: int,
    trans_std: float,
    needed: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of features and trans where needed, else (0,)."""
    none = features.new_empty((0,))
    return (
        features.new_empty(features.shape) if needed[0] else none,
        trans.new_empty(trans.shape) if trans is not None and needed[1] else none.clone(),
    )


def _save_deform_psroi_pooling(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    features, rois, trans, *ctx.geometry = inputs
    ctx.save_for_backward(features, rois, trans)


def _deform_psroi_pooling_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    features, rois, trans = ctx.saved_tensors
    needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
    rest = (None,) * len(ctx.geometry)
    if not any(needed):
        return None, None, None, *rest
    backward = torch.ops.maskrcnn_benchmark.deform_psroi_pooling_backward
    grad_features, grad_trans = backward(grad, features, rois, trans, *ctx.geometry, needed)
    return grad_features if needed[0] else None, None, grad_trans if needed[1] else None, *rest


register_op(
    "deform_psroi_pooling",
    fake=_deform_psroi_pooling_fake,
    backward=_deform_psroi_pooling_grad,
    setup_context=_save_deform_psroi_pooling,
)
register_op("deform_psroi_pooling_backward", fake=_deform_psroi_pooling_backward_fake)
