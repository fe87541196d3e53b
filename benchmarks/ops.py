"""Native operations beside torchvision's, at three sizes, with the bound that bytes and operations set.

`bound_ms` is the time of the min traffic (every input that is read and every output, once) or the min
arithmetic at the speed of the device, measured in the same run with a copy and a matrix product. The peers
differ in conventions (no +1 in box sizes), not in the amount of work; deformable position-sensitive pooling
has none, and that of crop split and the quadrant masks is their composition from torch operations.
"""

from __future__ import annotations

import torch
import torchvision
from op_case import Case, Size, backward_of, bind, make_boxes
from op_deform import deform_conv_cases, deform_psroi_cases
from op_one_stage import focal_cases, pool_cases
from op_quadrants import quadrant_cases
from timing import DeviceSpeed, median_ms, peak_mb, size_of
from torch import Tensor

from maskrcnn_benchmark.layers import fpn_roi_align, nms, roi_align

SCALES = (0.25, 0.125, 0.0625, 0.03125)
STRIDES = (4, 8, 16, 32)
RATIO = 2
TARGETS = {"nms": 1.0, "roi_align": 0.7, "roi_align backward": 0.7, "fpn_roi_align": 0.6}
TARGETS |= {name: 0.5 for name in ("roi_pool", "sigmoid_focal_loss", "sigmoid_focal_loss backward")}
TARGETS |= {"deform_conv2d": 0.6, "deform_conv2d backward": 0.6, "deform_conv2d grouped": 0.6}


SIZES = (
    Size("small", 256, 320, 64, 128, 7, 1000),
    Size("medium", 512, 640, 256, 512, 14, 4000),
    Size("large", 800, 1216, 256, 1000, 7, 12000),
)


def nms_case(size: Size, device: torch.device, generator: torch.Generator) -> Case:
    """Crowded proposals: eight of ten are shifted copies.

    NMS compares at least every pair of kept boxes, and every other box with one of them.
    """
    boxes = make_boxes(size.boxes, size, generator)
    boxes = boxes[torch.randint(0, size.boxes // 5, (size.boxes,), generator=generator)]
    boxes = (boxes + torch.randn(size.boxes, 4, generator=generator) * 4).to(device)
    scores = torch.rand(size.boxes, generator=generator).to(device)
    kept = len(nms(boxes, scores, 0.7))
    pairs = kept * (kept - 1) / 2 + size.boxes - kept
    return Case(
        "nms",
        lambda: nms(boxes, scores, 0.7),
        lambda: torchvision.ops.nms(boxes, scores, 0.7),
        size_of(boxes, scores) + 8 * kept,
        14 * pairs,
    )


def pooling_work(rois: Tensor, scales: Tensor, size: Size, pixels: int) -> tuple[float, float]:
    """Pixels of one channel that RoIs read, each once, and operations of the separable sums.

    A bin has 2 * RATIO taps per axis; an RoI reads at most `side + 2` pixels and all its taps per axis.
    """
    sides = (rois[:, 3:] - rois[:, 1:3]) * scales[:, None] + 2
    read = sides.clamp(max=2 * RATIO * size.pooled)
    taps = 2 * RATIO
    operations = 2 * taps * size.pooled * (read[:, 0].sum().item() + len(rois) * size.pooled)
    return min(pixels, read.prod(1).sum().item()), operations * size.channels


def align_cases(size: Size, device: torch.device, generator: torch.Generator) -> list[Case]:
    """roi_align on the level of stride 8, forward and backward."""
    feature = torch.randn(1, size.channels, size.height // 8, size.width // 8, generator=generator).to(device)
    boxes = make_boxes(size.rois, size, generator)
    rois = torch.cat([torch.zeros(size.rois, 1), boxes], dim=1).to(device)
    side = (size.pooled, size.pooled)
    read, operations = pooling_work(rois, rois.new_full((size.rois,), 0.125), size, feature[0, 0].numel())
    pooled = 4.0 * size.rois * size.channels * size.pooled**2

    def ours(x: Tensor) -> Tensor:
        return roi_align(x, rois, side, 0.125, RATIO)

    def peer(x: Tensor) -> Tensor:
        return torchvision.ops.roi_align(x, rois, side, 0.125, RATIO)

    return [
        Case(
            "roi_align",
            lambda: ours(feature),
            lambda: peer(feature),
            pooled + 4 * read * size.channels,
            operations,
        ),
        Case(
            "roi_align backward",
            backward_of(lambda x: ours(x[0]), [feature]),
            backward_of(lambda x: peer(x[0]), [feature]),
            pooled + size_of(feature),
            operations,
        ),
    ]


def fpn_cases(size: Size, device: torch.device, generator: torch.Generator) -> list[Case]:
    """fpn_roi_align on four levels, forward and backward, in planar and channels-last layout."""
    levels = [
        torch.randn(1, size.channels, size.height // s, size.width // s, generator=generator).to(device)
        for s in STRIDES
    ]
    boxes = make_boxes(size.rois, size, generator).to(device)
    rois = torch.cat([boxes.new_zeros(size.rois, 1), boxes], dim=1)
    side, names = (size.pooled, size.pooled), [str(i) for i in range(len(STRIDES))]
    pooler = torchvision.ops.MultiScaleRoIAlign(names, size.pooled, RATIO)
    mean_level = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt().div(224).log2().floor().add(4).clamp(2, 5)
    pixels = sum(level[0, 0].numel() for level in levels)
    read, operations = pooling_work(rois, 2.0**-mean_level, size, pixels)
    pooled = 4.0 * size.rois * size.channels * size.pooled**2

    def ours(x: list[Tensor]) -> Tensor:
        return fpn_roi_align(x, rois, side, SCALES, RATIO)

    def peer(x: list[Tensor]) -> Tensor:
        return pooler(dict(zip(names, x, strict=True)), [boxes], [(size.height, size.width)])

    cases = []
    for layout, suffix in ((torch.contiguous_format, ""), (torch.channels_last, " channels-last")):
        maps = [level.contiguous(memory_format=layout) for level in levels]
        forward = pooled + 4 * read * size.channels
        cases += [
            Case("fpn_roi_align" + suffix, bind(ours, maps), bind(peer, maps), forward, operations),
            Case(
                "fpn_roi_align backward" + suffix,
                backward_of(ours, maps),
                backward_of(peer, maps),
                pooled + size_of(*maps),
                operations,
            ),
        ]
    return cases


def measure(device: torch.device, quick: bool) -> list[dict[str, str | float | None]]:
    """One row per operation and size."""
    speed, rows = DeviceSpeed(device), []
    for size in SIZES[:1] if quick else SIZES:
        generator = torch.Generator().manual_seed(0)
        cases = [nms_case(size, device, generator)]
        cases += align_cases(size, device, generator) + fpn_cases(size, device, generator)
        cases += deform_conv_cases(size, device, generator) + deform_psroi_cases(size, device, generator)
        cases += pool_cases(size, device, generator) + focal_cases(size, device, generator)
        cases += quadrant_cases(size, device, generator)
        for case in cases:
            calls = [case.ours] if case.peer is None else [case.ours, case.peer]
            ours, *others = median_ms(calls, device, 0.05 if quick else 2.0)
            peer = others[0] if others else None
            bound = speed.bound_ms(case.moved, case.operations)
            rows.append(
                {
                    "op": case.op,
                    "size": size.name,
                    "ours_ms": round(ours, 3),
                    "torchvision_ms": None if peer is None else round(peer, 3),
                    "ratio": None if peer is None else round(ours / peer, 3),
                    "target": TARGETS.get(case.op),
                    "bound_ms": round(bound, 3),
                    "ours/bound": round(ours / bound, 1),
                    "ours_peak_mb": rounded(peak_mb(case.ours, device)),
                    "torchvision_peak_mb": rounded(peak_mb(case.peer, device)) if case.peer else None,
                }
            )
    return rows


def rounded(value: float | None) -> float | None:
    """Rounded to one decimal, or None."""
    return None if value is None else round(value, 1)
