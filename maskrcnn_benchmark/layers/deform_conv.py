"""Deformable convolution (Dai et al. 2017) and its modulated form (Zhu et al. 2019); core spec 6 and 16."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers._ops import load_ops

Pair = int | tuple[int, int]


def pair(value: Pair) -> tuple[int, int]:
    """(vertical, horizontal) of one number or two."""
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

    features: (B,C,H,W); weight: (O, C / groups, kh, kw) and bias (O,) in its dtype. offset:
    (B, 2 * D * kh * kw, H', W') for D groups of channels that move together; channel 2 * (i * kw + j) of a
    group is the vertical displacement in cells, the next one the horizontal one. mask: (B, D * kh * kw, H',
    W'), a factor per sample. Samples are bilinear with zeros outside; a NaN offset gives NaN. Both numbers of
    groups follow from the shapes. Offsets and masks may have another floating dtype than the features: places
    are computed in float32 at least. Half precision is sampled in float32, multiplied as torch multiplies
    it. Under autocast features, weight and bias are cast as for any convolution, offsets and masks are not.
    Result and gradient of channels-last features are channels-last. Differentiable once in all tensors; with
    `torch.use_deterministic_algorithms` the gradient of the features is refused on CUDA. Raises ValueError
    (shapes, devices, ranges) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.deform_conv2d(
        features, offset, mask, weight, bias, pair(stride), pair(padding), pair(dilation)
    )


class DeformConv2d(nn.Module):
    """Parameters `weight` (O, C / groups, kh, kw) and perhaps `bias` of `deform_conv2d`; offsets come from
    the caller.
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
        self.stride, self.padding, self.dilation = pair(stride), pair(padding), pair(dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *pair(kernel_size)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.groups = groups
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight uniform in +-1/sqrt(fan in), bias zero."""
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
        """(B,C,H,W) -> (B,O,H',W'). scale (O,) multiplies the weight, shift (O,) is added to the bias: a
        norm with fixed statistics that follows.
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
        """Settings for printing."""
        sizes = (
            f"{self.weight.shape[1] * self.groups}, {self.weight.shape[0]}, {tuple(self.weight.shape[2:])}"
        )
        return (
            f"{sizes}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}"
        )


class DFConv2d(nn.Module):
    """A 3x3 (or other) convolution that learns where to read: children `offset` and `conv`.

    `offset`, an ordinary convolution of the same geometry, gives 2 * taps offsets per deformable group, and
    when modulated one mask logit per tap after all offsets (parity: through a sigmoid, not doubled). It
    starts with Kaiming-uniform weights and zero bias, as published.
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
        kernel, stride, padding, dilation = (pair(v) for v in (kernel_size, stride, padding, dilation))
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
        """(B,C,H,W) -> (B,O,H',W'); scale and shift as in `DeformConv2d`."""
        offset, mask = self.offset(x), None
        if self.modulated:
            mask = offset[:, self.num_offsets :].sigmoid()
            offset = offset[:, : self.num_offsets]
        return self.conv(x, offset, mask, scale=scale, shift=shift)

    def extra_repr(self) -> str:
        """Settings for printing."""
        return f"deformable_groups={self.deformable_groups}, modulated={self.modulated}"
