"""Deformable convolution (Dai et al. 2017, section 2.1), also modulated (Zhu et al. 2019, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.utils.native import is_channels_last, load_ops, register_op

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    """(vertical, horizontal) from one int or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def deform_conv2d(
    features: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution whose tap k = (i, j) reads at p0 + k * dilation + offset: (B, O, H', W').

    features: (B, C, H, W); weight: (O, C / groups, kh, kw) and bias (O,) in its dtype. offset:
    (B, 2 * D * kh * kw, H', W') for D deformable groups of channels; channel 2 * (i * kw + j) of a group is
    the vertical displacement in feature pixels, the next one the horizontal one. mask: (B, D * kh * kw, H',
    W'), a factor per sample. Samples are bilinear with zeros outside; a NaN offset gives NaN. groups and D
    follow from the shapes. Offsets and masks may have another floating dtype than the features: positions
    are computed in float32 at least. Half precision is sampled in float32, multiplied as torch multiplies
    it. Under autocast features, weight and bias are cast as for any convolution, offsets and masks are not.
    Result and gradient of channels-last features are channels-last. Differentiable once in all tensors; with
    `torch.use_deterministic_algorithms` the gradient of the features is refused on CUDA. Raises ValueError
    (shapes, devices, ranges) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.deform_conv2d(
        features, offset, mask, weight, bias, _pair(stride), _pair(padding), _pair(dilation)
    )


class DeformConv2d(nn.Module):
    """`deform_conv2d` with parameters `weight` (O, C / groups, kh, kw) and optional `bias`.

    The offsets come from the caller.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"DeformConv2d: {in_channels} and {out_channels} channels do not divide into {groups} groups"
            )
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *_pair(kernel_size)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.groups = groups
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the weight uniformly from +-1/sqrt(fan in), the bias with zero."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor,
        offset: Tensor,
        mask: Tensor | None = None,
        *,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """(B, C, H, W) -> (B, O, H', W').

        scale (O,) multiplies the weight, shift (O,) is added to the bias: the fixed statistics of a norm that
        follows.
        """
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if scale is not None:
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = bias * scale if bias is not None else None
        if shift is not None:
            bias = shift if bias is None else bias + shift
        geometry = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return deform_conv2d(x, offset, weight, bias, mask=mask, **geometry)

    def extra_repr(self) -> str:
        """Arguments for printing."""
        sizes = (
            f"{self.weight.shape[1] * self.groups}, {self.weight.shape[0]}, {tuple(self.weight.shape[2:])}"
        )
        return (
            f"{sizes}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}"
        )


class DFConv2d(nn.Module):
    """Deformable convolution that predicts its own offsets: children `offset` and `conv`.

    `offset`, an ordinary convolution of the same geometry, predicts 2 * kh * kw offsets per deformable group,
    and when modulated one mask logit per tap after all offsets (parity: through a sigmoid, not
    doubled). It starts with Kaiming-uniform weights and zero bias, as published.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair = 3,
        *,
        stride: Pair = 1,
        padding: Pair = 1,
        dilation: Pair = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        modulated: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if deformable_groups < 1 or in_channels % deformable_groups:
            raise ValueError(
                f"DFConv2d: {in_channels} channels do not divide into {deformable_groups} deformable groups"
            )
        kernel, stride, padding, dilation = (_pair(v) for v in (kernel_size, stride, padding, dilation))
        self.modulated = modulated
        self.deformable_groups = deformable_groups
        self.num_offsets = 2 * deformable_groups * kernel[0] * kernel[1]
        channels = self.num_offsets * 3 // 2 if modulated else self.num_offsets
        self.offset = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation)
        nn.init.kaiming_uniform_(self.offset.weight, a=1)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)
        self.conv = DeformConv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    def forward(self, x: Tensor, *, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, O, H', W'); scale and shift (O,) as in `DeformConv2d`."""
        offset, mask = self.offset(x), None
        if self.modulated:
            mask = offset[:, self.num_offsets :].sigmoid()
            offset = offset[:, : self.num_offsets]
        return self.conv(x, offset, mask, scale=scale, shift=shift)

    def extra_repr(self) -> str:
        """Arguments for printing."""
        return f"deformable_groups={self.deformable_groups}, modulated={self.modulated}"


def _output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Height or width of the result of a convolution."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _empty_features(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialised (B, C, H, W) in the dtype and memory format of `like`."""
    layout = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def _deform_conv2d_fake(
    features: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    sizes = [
        _output_size(features.shape[2 + i], weight.shape[2 + i], stride[i], padding[i], dilation[i])
        for i in range(2)
    ]
    return _empty_features((features.shape[0], weight.shape[0], *sizes), features)


def _deform_conv2d_backward_fake(
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
    """Gradients of features, offset, mask and weight where needed, else (0,)."""

    def empty_like(like: Tensor | None, is_needed: bool) -> Tensor:
        """The shape of `like`, or (0,)."""
        return like.new_empty(like.shape) if like is not None and is_needed else features.new_empty((0,))

    grad_features = _empty_features(features.shape, features) if needed[0] else features.new_empty((0,))
    return (
        grad_features,
        empty_like(offset, needed[1]),
        empty_like(mask, needed[2]),
        empty_like(weight, needed[3]),
    )


def _save_deform_conv2d(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    features, offset, mask, weight, _, *ctx.geometry = inputs
    ctx.save_for_backward(features, offset, mask, weight)


def _deform_conv2d_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    features, offset, mask, weight = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[:4])
    grads: list[Tensor | None] = [None] * 4
    if any(needed):
        backward = torch.ops.maskrcnn_benchmark.deform_conv2d_backward
        computed = backward(grad, features, offset, mask, weight, *ctx.geometry, needed)
        grads = [value if used else None for value, used in zip(computed, needed, strict=True)]
    bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[4] else None
    return *grads, bias, None, None, None


register_op(
    "deform_conv2d",
    fake=_deform_conv2d_fake,
    backward=_deform_conv2d_grad,
    setup_context=_save_deform_conv2d,
)
register_op("deform_conv2d_backward", fake=_deform_conv2d_backward_fake)
