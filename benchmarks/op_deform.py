"""Cases of the deformable operations."""

from __future__ import annotations

import torch
import torchvision
from op_case import Case, Size, backward_of, bind, make_boxes
from timing import size_of
from torch import Tensor

from maskrcnn_benchmark.layers import deform_conv2d, deform_psroi_pooling

STRIDE = 16
TAPS = 9
SAMPLES = 4
# Operations per sampled value: four products and three sums; the backward pass adds four products and sums
# for the offset, and four for the map.
SAMPLE, SAMPLE_BACKWARD = 7, 23


def deform_conv_cases(size: Size, device: torch.device, generator: torch.Generator) -> list[Case]:
    """Modulated 3x3 convolutions on the level of stride 16, dense and in 32 groups, offsets of std 1."""
    height, width, channels = size.height // STRIDE, size.width // STRIDE, size.channels

    def sample(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    cases = []
    for suffix, groups in (("", 1), (" grouped", 32)):
        x, offset = sample(1, channels, height, width), sample(1, 2 * TAPS, height, width)
        mask, weight = sample(1, TAPS, height, width).sigmoid(), sample(channels, channels // groups, 3, 3)

        def ours(t: list[Tensor]) -> Tensor:
            return deform_conv2d(t[0], t[1], t[3], padding=1, mask=t[2])

        def peer(t: list[Tensor]) -> Tensor:
            return torchvision.ops.deform_conv2d(t[0], t[1], t[3], padding=1, mask=t[2])

        tensors = [x, offset, mask, weight]
        product, columns = 2.0 * x.numel() * weight[0].numel(), float(x.numel() * TAPS)
        name, read = f"deform_conv2d{suffix}", size_of(*tensors)
        cases += [
            Case(
                name, bind(ours, tensors), bind(peer, tensors), read + size_of(x), product + SAMPLE * columns
            ),
            Case(
                f"{name} backward",
                backward_of(ours, tensors),
                backward_of(peer, tensors),
                2 * read + size_of(x),
                2 * product + SAMPLE_BACKWARD * columns,
            ),
        ]
    return cases


def deform_psroi_cases(size: Size, device: torch.device, generator: torch.Generator) -> list[Case]:
    """As many channels in as out, 7 x 7 bins of 4 x 4 samples, one class of shifts.

    A bin is at best a product of two lists of as many pixels as it has samples per axis, and one more.
    """
    feature = torch.randn(1, size.channels, size.height // STRIDE, size.width // STRIDE, generator=generator)
    boxes = make_boxes(size.rois, size, generator)
    rois = torch.cat([torch.zeros(size.rois, 1), boxes], dim=1).to(device)
    trans = torch.randn(size.rois, 2, 7, 7, generator=generator).to(device)
    pixels = (boxes[:, 2:] - boxes[:, :2]).div(STRIDE * 7).ceil().add(1).clamp(max=SAMPLES + 1).prod(1).sum()
    pooled = size.rois * size.channels * 49
    operations = 2.0 * pixels.item() * 49 * size.channels

    def ours(t: list[Tensor]) -> Tensor:
        return deform_psroi_pooling(
            t[0],
            rois,
            t[1],
            spatial_scale=1 / STRIDE,
            output_dim=size.channels,
            pooled_size=7,
            sample_per_part=SAMPLES,
            trans_std=0.1,
        )

    tensors = [feature.to(device), trans]
    moved = size_of(*tensors, rois) + 4.0 * pooled
    return [
        Case("deform_psroi_pooling", bind(ours, tensors), None, moved, operations),
        Case(
            "deform_psroi_pooling backward",
            backward_of(ours, tensors),
            None,
            moved + size_of(*tensors),
            3 * operations,
        ),
    ]
