"""Checks of the operations of SipMask: crop split, NMS and Fast NMS, deformable convolution."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.checker import Checker
from checks.noise_text import NoiseReader, number
from checks.store import read_pair
from maskrcnn_benchmark.layers.crop_split import crop_split, crop_split_gt
from maskrcnn_benchmark.layers.deform_conv import deform_conv2d
from maskrcnn_benchmark.layers.nms import batched_nms, nms
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import fast_nms

Arrays = dict[str, np.ndarray]
CLOSE = 1e-5


def check_ops(path: Path, checker: Checker) -> None:
    """A file of operations: inputs as texts, outputs as arrays."""
    info, arrays = read_pair(path)
    noise = NoiseReader.of(info)
    for name, entry in info["crop_split"].items():
        with checker.section(f"crop_split.{name}"):
            _check_crop(name, entry, noise, arrays, checker)
    with checker.section("nms"):
        _check_nms(info["nms"], noise, arrays, checker)
    with checker.section("fast_nms"):
        _check_fast_nms(info["fast_nms"], noise, arrays, checker)
    with checker.section("deform_conv"):
        _check_deformable(info["deform_conv"], noise, arrays, checker)


def _check_crop(
    name: str, entry: dict[str, Any], noise: NoiseReader, arrays: Arrays, checker: Checker
) -> None:
    boxes, data = torch.tensor(entry["rois_xyxy"]), noise(entry["data"]).requires_grad_()
    out = crop_split(data, boxes, entry["cells"])
    checker.equal("out", out, arrays[f"{name}.out"])
    out.backward(noise(entry["output_gradient"]))
    checker.equal("grad", data.grad, arrays[f"{name}.grad_in"])
    checker.equal("gt", crop_split_gt(data[0].detach(), boxes), arrays[f"{name}.gt_out"])


def described_boxes(text: str, noise: NoiseReader) -> Tensor:
    """(N, 4) xyxy boxes of a text that gives factors of corner and size, and the smallest size."""
    behind = text[text.index("noise(") :].partition(")")[2]
    first, second, add = (float(v) for v in re.findall(r"(?:\*|factors |and |\+)([\d.]*\d)", behind))
    values = noise(text).abs()
    corner = values[..., :2] * first
    return torch.cat((corner, corner + values[..., 2:] * second + add), dim=-1)


def _check_nms(info: dict[str, Any], noise: NoiseReader, arrays: Arrays, checker: Checker) -> None:
    boxes, scores = described_boxes(info["boxes"], noise), noise(info["scores"])
    labels = noise(info["labels"])
    for name, expected in arrays.items():
        kind, _, threshold = name.rpartition("_")
        if kind == "nms":
            checker.equal(name, nms(boxes, scores, float(threshold)), expected)
        elif kind == "ml_nms":
            checker.equal(name, batched_nms(boxes, scores, labels, float(threshold)), expected)


def _check_fast_nms(info: dict[str, Any], noise: NoiseReader, arrays: Arrays, checker: Checker) -> None:
    boxes, scores = described_boxes(info["boxes"], noise), noise(info["scores"])
    limit, iou = int(number(info["arrays"], "at most")), number(info["arrays"], "iou_thr")
    for name in [key for key in arrays if key.endswith(".classes")]:
        _, top_k, threshold = name.removesuffix(".classes").split(".", 2)
        labels, index = (scores > float(threshold)).nonzero().unbind(1)
        candidates = scores[labels, index]
        kept = fast_nms(boxes[index], candidates, labels, iou, int(top_k))
        kept = kept[candidates[kept].argsort(descending=True, stable=True)][:limit]
        checker.equal(name, labels[kept], arrays[name])
        detections = torch.cat((boxes[index[kept]], candidates[kept, None]), dim=1)
        checker.values(name, detections, arrays[name.replace("classes", "boxes_scores")], CLOSE)


def _check_deformable(info: dict[str, Any], noise: NoiseReader, arrays: Arrays, checker: Checker) -> None:
    leaves = {
        name: noise(info[key]).requires_grad_()
        for name, key in (("x", "x"), ("offset", "offset"), ("w", "weight"))
    }
    stride, padding, dilation = (int(number(info["params"], word)) for word in ("stride", "pad", "dilation"))
    out = deform_conv2d(
        leaves["x"], leaves["offset"], leaves["w"], stride=stride, padding=padding, dilation=dilation
    )
    checker.values("out", out, arrays["deform.out"], CLOSE)
    out.backward(noise(info["output_gradient"]))
    for name, tensor in leaves.items():
        checker.values(f"grad_{name}", tensor.grad, arrays[f"deform.grad_{name}"], CLOSE)
