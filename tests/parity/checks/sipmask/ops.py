"""Checks of the operations of SipMask: crop split, suppression, deformable convolution (SipMask spec 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checks.checker import Checker
from checks.fill import noise_tensor
from checks.store import read_pair
from maskrcnn_benchmark.layers.crop_split import crop_split, crop_split_gt
from maskrcnn_benchmark.layers.deform_conv import deform_conv2d
from maskrcnn_benchmark.layers.nms import batched_nms, nms
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import SuppressionSettings, fast_nms

Arrays = dict[str, np.ndarray]
CLOSE = 1e-5
FAST_CLASSES, FAST_BOXES, FAST_THRESHOLD, FAST_LIMIT = 5, 120, 0.5, 100


def check_ops(folder: Path, checker: Checker) -> None:
    """`ops.json` and `ops.npz`."""
    info, arrays = read_pair(folder, "ops")
    for name, entry in info["crop_split"].items():
        with checker.section(f"crop_split.{name}"):
            _check_crop(name, entry["cells"], torch.tensor(entry["rois_xyxy"]), arrays, checker)
    with checker.section("nms"):
        _check_nms(arrays, checker)
    with checker.section("fast_nms"):
        _check_fast_nms(arrays, checker)
    with checker.section("deform_conv"):
        _check_deformable(arrays, checker)


def _check_crop(name: str, cells: int, boxes: Tensor, arrays: Arrays, checker: Checker) -> None:
    height, width, count = arrays[f"{name}.out"].shape
    data = noise_tensor(f"sip_crop_{name}", (cells * cells, height, width, count)).requires_grad_()
    out = crop_split(data, boxes, cells)
    checker.equal("out", out, arrays[f"{name}.out"])
    out.backward(noise_tensor(f"sip_cropgrad_{name}", (height, width, count)))
    checker.equal("grad", data.grad, arrays[f"{name}.grad_in"])
    checker.equal("gt", crop_split_gt(data[0].detach(), boxes), arrays[f"{name}.gt_out"])


def _boxes(name: str, shape: tuple[int, ...], first: float, second: float, add: float) -> Tensor:
    drawn = noise_tensor(name, shape).abs()
    corner = drawn[..., :2] * first
    return torch.cat((corner, corner + drawn[..., 2:] * second + add), dim=-1)


def _check_nms(arrays: Arrays, checker: Checker) -> None:
    boxes = _boxes("sip_nmsb", (60, 4), 40, 30, 5)
    scores = noise_tensor("sip_nmss", (60,)).sigmoid()
    labels = (noise_tensor("sip_nmsl", (60,)).abs() * 2).long() % 3 + 1
    for name, wanted in arrays.items():
        kind, _, threshold = name.rpartition("_")
        if kind == "nms":
            checker.equal(name, nms(boxes, scores, float(threshold)), wanted)
        elif kind == "ml_nms":
            checker.equal(name, batched_nms(boxes, scores, labels, float(threshold)), wanted)


def _check_fast_nms(arrays: Arrays, checker: Checker) -> None:
    boxes = _boxes("sip_fb", (FAST_BOXES, 4), 60, 40, 8)
    scores = (noise_tensor("sip_fs", (FAST_CLASSES, FAST_BOXES)) * 1.5 - 2).sigmoid()
    for name in [key for key in arrays if key.endswith(".classes")]:
        _, top_k, threshold = name.removesuffix(".classes").split(".", 2)
        labels, rows = (scores > float(threshold)).nonzero().unbind(1)
        chosen = scores[labels, rows]
        settings = SuppressionSettings(FAST_THRESHOLD, FAST_LIMIT, fast=True, top_k=int(top_k))
        kept = fast_nms(boxes[rows], chosen, labels, settings)
        kept = kept[chosen[kept].argsort(descending=True, stable=True)][:FAST_LIMIT]
        checker.equal(name, labels[kept], arrays[name])
        found = torch.cat((boxes[rows[kept]], chosen[kept, None]), dim=1)
        checker.values(name, found, arrays[name.replace("classes", "boxes_scores")], CLOSE)


def _check_deformable(arrays: Arrays, checker: Checker) -> None:
    inputs = {
        "x": noise_tensor("sip_dx", (2, 8, 7, 9)),
        "offset": noise_tensor("sip_do", (2, 72, 7, 9)) * 2,
        "w": noise_tensor("sip_dw", (6, 8, 3, 3)) * 0.2,
    }
    for tensor in inputs.values():
        tensor.requires_grad_()
    out = deform_conv2d(inputs["x"], inputs["offset"], inputs["w"], padding=1)
    checker.values("out", out, arrays["deform.out"], CLOSE)
    out.backward(noise_tensor("sip_dg", (2, 6, 7, 9)))
    for name, tensor in inputs.items():
        checker.values(f"grad_{name}", tensor.grad, arrays[f"deform.grad_{name}"], CLOSE)
