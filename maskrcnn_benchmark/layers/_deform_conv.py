"""What torch must know about deform_conv2d besides its kernels: shapes without data, and derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Height or width of what a convolution gives."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def layout_like(maps: Tensor) -> torch.memory_format:
    """Channels-last for maps that are stored so and not also plane by plane."""
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def fake_forward(
    features: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """(B, out channels, out height, out width) in the layout of the input."""
    sizes = [
        extent(features.shape[2 + i], weight.shape[2 + i], stride[i], padding[i], dilation[i])
        for i in range(2)
    ]
    shape = (features.shape[0], weight.shape[0], *sizes)
    return torch.empty(
        shape, dtype=features.dtype, device=features.device, memory_format=layout_like(features)
    )


def fake_backward(
    grad: Tensor,
    features: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    needed: Sequence[bool],
) -> tuple[Tensor, ...]:
    """Like input, offset, mask and weight where needed, else without elements."""

    def planar(like: Tensor | None, wanted: bool) -> Tensor:
        return features.new_empty((0,)) if like is None or not wanted else like.new_empty(like.shape)

    maps = features.new_empty((0,))
    if needed[0]:
        maps = torch.empty(
            features.shape, dtype=features.dtype, device=features.device, memory_format=layout_like(features)
        )
    return maps, planar(offset, needed[1]), planar(mask, needed[2]), planar(weight, needed[3])


def save(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep the tensors and the geometry."""
    features, offset, mask, weight, _, *ctx.geometry = inputs
    ctx.save_for_backward(features, offset, mask, weight)


def derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of input, offset, mask, weight and bias."""
    features, offset, mask, weight = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:4])
    grads: list[Tensor | None] = [None] * 4
    if any(wanted):
        backward = torch.ops.maskrcnn_benchmark.deform_conv2d_backward
        found = backward(grad, features, offset, mask, weight, *ctx.geometry, wanted)
        grads = [value if want else None for value, want in zip(found, wanted, strict=True)]
    bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[4] else None
    return *grads, bias, None, None, None
