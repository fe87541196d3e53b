"""Checks of the native operations: RoIAlign, NMS, mask pasting, mask targets; and smooth L1."""

from __future__ import annotations

import math
import re

import torch

from checks.checker import Checker
from checks.core.inputs import Components
from checks.fill import noise_tensor
from checks.store import unpack
from maskrcnn_benchmark.layers.losses import sigmoid_focal_loss, smooth_l1_loss
from maskrcnn_benchmark.layers.masks import paste_masks, polygon_mask_targets
from maskrcnn_benchmark.layers.nms import nms
from maskrcnn_benchmark.layers.roi_align import roi_align
from maskrcnn_benchmark.layers.roi_pool import roi_pool
from maskrcnn_benchmark.structures.boxlist import FLIP_LEFT_RIGHT
from maskrcnn_benchmark.structures.masks import SegmentationMask

MASK_PADDING = 1
FOCAL_FLOOR = 1e-12


def check_roi(ctx: Components, checker: Checker) -> None:
    """RoIAlign forward and gradient, RoI max pooling; fewer stored outputs than RoIs mean every k-th one."""
    feature = ctx.noise(ctx.info["roi"]["feature"])
    rois = ctx.tensor("roi.rois")
    for name in ctx.names("roi"):
        setting = re.fullmatch(r"align\.s([\d.]+)\.p(\d+)\.r(\d+)", name)
        maximum = re.fullmatch(r"pool\.s([\d.]+)\.p(\d+)\.first(\d+)", name)
        if maximum is not None:
            side, first = int(maximum[2]), int(maximum[3])
            pooled = roi_pool(feature, rois[:first], (side, side), float(maximum[1]))
            checker.values(name, pooled, ctx.arrays[f"roi.{name}"])
        if setting is None:
            continue
        scale, side, ratio = float(setting[1]), int(setting[2]), int(setting[3])
        source = feature.clone().requires_grad_()
        output = roi_align(source, rois, (side, side), scale, ratio)
        stored = ctx.arrays[f"roi.{name}"]
        step = math.ceil(len(rois) / len(stored))
        checker.values(name, output[::step], stored)
        gradient = ctx.arrays.get(f"roi.{name}.grad")
        if gradient is not None:
            (output * noise_tensor(ctx.noise.name(f"roi.cot{side}"), output.shape)).sum().backward()
            assert source.grad is not None
            checker.values(f"{name}.grad", source.grad[: len(gradient)], gradient)


def check_nms(ctx: Components, checker: Checker) -> None:
    """Kept indices; of the two rules at equality only "remove IoU above the threshold" is ours."""
    for name in ctx.names("nms"):
        edge = re.fullmatch(r"edge\.keep_cuda_([\d.]+)_gt", name)
        plain = re.fullmatch(r"keep\.([\d.]+)", name)
        match = edge or plain
        if match is None:
            continue
        stem = "nms.edge" if edge else "nms"
        kept = nms(ctx.tensor(f"{stem}.boxes"), ctx.tensor(f"{stem}.scores"), float(match[1]))
        checker.equal(name, kept, ctx.arrays[f"nms.{name}"])


def check_smooth_l1(ctx: Components, checker: Checker) -> None:
    """Summed loss; the names give beta to four digits, 0.1111 being one ninth."""
    text = ctx.info["smooth_l1"]
    first, second = (ctx.noise(part) for part in re.findall(r"noise\('[^']+',\s*\([^)]*\)\)", text))
    for name in ctx.names("smooth_l1"):
        beta = float(name.rpartition("beta")[2])
        beta = 1.0 / 9 if abs(beta - 1.0 / 9) < 1e-4 else beta
        checker.relative(name, smooth_l1_loss(first, second, beta), ctx.arrays[f"smooth_l1.{name}"], 1e-4)


def check_focal(ctx: Components, checker: Checker) -> None:
    """Loss of every number and its derivative, for the gammas and alphas in the names."""
    targets = ctx.tensor("focal.targets")
    for name in ctx.names("focal"):
        setting = re.fullmatch(r"loss(\.g([\d.]+)\.a([\d.]+))", name)
        if setting is None:
            continue
        logits = ctx.tensor("focal.logits").requires_grad_()
        gamma, alpha = float(setting[2]), float(setting[3])
        loss = sigmoid_focal_loss(logits, targets, gamma=gamma, alpha=alpha, reduction="none")
        checker.relative(name, loss, ctx.arrays[f"focal.{name}"], 1e-4, floor=FOCAL_FLOOR)
        loss.sum().backward()
        stored = ctx.arrays[f"focal.grad{setting[1]}"]
        checker.relative(f"grad{setting[1]}", logits.grad, stored, 1e-4, floor=FOCAL_FLOOR)


def check_masker(ctx: Components, checker: Checker) -> None:
    """`paste[<side>].<threshold>`: probabilities pasted into the image, packed bits."""
    info = ctx.info["masker"]
    width, height = info["image_size_wh"]
    boxes = ctx.tensor("masker.boxes")
    for name in ctx.names("masker"):
        setting = re.fullmatch(r"paste(\d*)\.([\d.]+)", name)
        if setting is None:
            continue
        stored = ctx.arrays[f"masker.{name}"]
        masks = ctx.noise(info["masks"])
        if setting[1]:
            side, count = int(setting[1]), len(stored) * 8 // (width * height)
            masks = (2 * noise_tensor(ctx.noise.name(f"masker.m{side}"), (count, 1, side, side))).sigmoid()
        pasted = paste_masks(masks[:, 0], boxes[: len(masks)], height, width, float(setting[2]), MASK_PADDING)
        checker.equal(name, pasted, unpack(stored, (len(masks), height, width)))


def check_mask_targets(ctx: Components, checker: Checker) -> None:
    """Targets from polygons and from bitmaps, and bitmaps after flips and resizing."""
    info = ctx.info["mask_targets"]
    width, height = info["image_size_wh"]
    masks = SegmentationMask(info["polygons"], (width, height))
    bitmaps = SegmentationMask(masks.to_bitmaps(), (width, height), mode="mask")
    boxes = ctx.tensor("mask_targets.proposals")
    owners = torch.tensor(info["instance_of_proposal"])
    for name in ctx.names("mask_targets"):
        stored = ctx.arrays[f"mask_targets.{name}"]
        sizes = [int(v) for v in re.findall(r"\d+", name)]
        if name.startswith("poly."):
            got = polygon_mask_targets(masks.polygons(), owners, boxes, sizes[0], (width, height))
        elif name.startswith("binary.") and "uint8" not in info["binary_dtype"]:
            checker.unsupported(name, "targets that cover every touched pixel")
            continue
        elif name.startswith("binary."):
            got = bitmaps.box_targets(owners, boxes, sizes[0], full_cover=True)
        elif name == "full_masks":
            got = masks.to_bitmaps()
        elif name == "flip_lr":
            got = masks.transpose(FLIP_LEFT_RIGHT).to_bitmaps()
        elif name.startswith("resize_"):
            got = masks.resize((sizes[0], sizes[1])).to_bitmaps()
        else:
            continue
        checker.equal(name, got, unpack(stored, tuple(got.shape)))
