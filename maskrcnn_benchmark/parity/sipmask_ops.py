"""Checks of the operations of SipMask: crop split, suppression, deformable convolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.layers.crop_split import crop_split, crop_split_gt
from maskrcnn_benchmark.layers.deform_conv import deform_conv2d
from maskrcnn_benchmark.layers.nms import batched_nms, nms
from maskrcnn_benchmark.parity.checks import Checker
from maskrcnn_benchmark.parity.fill import noise_tensor
from maskrcnn_benchmark.parity.store import read_pair

PLANE = (16, 24)
Arrays = dict[str, np.ndarray]


def check_ops(folder: Path, checker: Checker) -> None:
    """Everything of ``ops.json`` but fast NMS."""
    info, arrays = read_pair(folder, "ops")
    for name, settings in info["crop_split"].items():
        with checker.section(f"crop_split.{name}"):
            _check_crop_split(name, settings, arrays, checker)
    with checker.section("nms"):
        _check_nms(arrays, checker)
    with checker.section("deform_conv"):
        _check_deform_conv(arrays, checker)


def _check_crop_split(name: str, settings: dict[str, Any], arrays: Arrays, checker: Checker) -> None:
    """Bit by bit; ``cell`` is the plane each pixel reads, -1 outside."""
    boxes, cells = torch.tensor(settings["rois_xyxy"]), settings["cells"]
    data = noise_tensor(f"sip_crop_{name}", (cells**2, *PLANE, len(boxes))).requires_grad_()
    out = crop_split(data, boxes, cells)
    out.backward(noise_tensor(f"sip_cropgrad_{name}", (*PLANE, len(boxes))))
    checker.equal("out", out, arrays[f"{name}.out"])
    checker.equal("grad_in", data.grad, arrays[f"{name}.grad_in"])
    checker.equal("gt_out", crop_split_gt(data.detach()[0], boxes), arrays[f"{name}.gt_out"])
    numbers = torch.arange(1.0, cells**2 + 1)[:, None, None, None].expand(data.shape)
    checker.equal("cell", crop_split(numbers, boxes, cells).long() - 1, arrays[f"{name}.cell"])


def _check_nms(arrays: Arrays, checker: Checker) -> None:
    drawn = noise_tensor("sip_nmsb", (60, 4)).abs()
    corner = drawn[:, :2] * 40
    boxes = torch.cat([corner, corner + drawn[:, 2:] * 30 + 5], dim=1)
    scores = noise_tensor("sip_nmss", (60,)).sigmoid()
    labels: Tensor = (noise_tensor("sip_nmsl", (60,)).abs() * 2).long() % 3 + 1
    for threshold in (0.3, 0.6):
        checker.equal(f"nms_{threshold}", nms(boxes, scores, threshold), arrays[f"nms_{threshold}"])
        kept = batched_nms(boxes, scores, labels, threshold)
        checker.equal(f"ml_nms_{threshold}", kept, arrays[f"ml_nms_{threshold}"])


def _check_deform_conv(arrays: Arrays, checker: Checker) -> None:
    """Four offset groups, forward and backward."""
    x = noise_tensor("sip_dx", (2, 8, 7, 9))
    offset = noise_tensor("sip_do", (2, 72, 7, 9)) * 2
    weight = noise_tensor("sip_dw", (6, 8, 3, 3)) * 0.2
    inputs = {"x": x, "offset": offset, "w": weight}
    for tensor in inputs.values():
        tensor.requires_grad_()
    out = deform_conv2d(x, offset, weight, padding=1)
    out.backward(noise_tensor("sip_dg", (2, 6, 7, 9)))
    checker.values("out", out, arrays["deform.out"])
    for name, tensor in inputs.items():
        checker.values(f"grad_{name}", tensor.grad, arrays[f"deform.grad_{name}"])
