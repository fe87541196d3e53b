"""What torch must know about deform_psroi_pooling besides its kernels: shapes without data, derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def fake_forward(
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
    """(R, output_dim, pooled_size, pooled_size)."""
    return features.new_empty((rois.shape[0], output_dim, pooled_size, pooled_size))


def fake_backward(
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
    """Like the features and the offsets where needed, else without elements."""
    none = features.new_empty((0,))
    return (
        features.new_empty(features.shape) if needed[0] else none,
        trans.new_empty(trans.shape) if trans is not None and needed[1] else none.clone(),
    )


def save(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep the tensors and the settings."""
    features, rois, trans, *ctx.settings = inputs
    ctx.save_for_backward(features, rois, trans)


def derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the features and the offsets."""
    features, rois, trans = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
    rest = (None,) * len(ctx.settings)
    if not any(wanted):
        return None, None, None, *rest
    backward = torch.ops.maskrcnn_benchmark.deform_psroi_pooling_backward
    maps, offsets = backward(grad, features, rois, trans, *ctx.settings, wanted)
    return maps if wanted[0] else None, None, offsets if wanted[1] else None, *rest
