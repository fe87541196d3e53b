"""Checks of anchors, boxes, box coding, matching and FPN levels."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from checks.checker import Checker
from checks.core.inputs import Components
from checks.store import unpack
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.layers.fpn_roi_align import assign_levels
from maskrcnn_benchmark.modeling.anchors import AnchorGenerator, generate_cell_anchors
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.heads.retinanet.targets import build_anchors
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.structures.boxlist import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.boxlist_ops import box_iou, remove_small_boxes


def anchor_generator(info: dict[str, list], straddle: int = 0) -> AnchorGenerator:
    """From `sizes, aspect_ratios, strides`: one size per stride, or all sizes on a single stride."""
    strides, ratios = info["strides"], info["aspect_ratios"]
    per_level = [info["sizes"]] if len(strides) == 1 else [[size] for size in info["sizes"]]
    cells = [generate_cell_anchors(s, sizes, ratios) for s, sizes in zip(strides, per_level, strict=True)]
    return AnchorGenerator(cells, strides, straddle)


def check_anchors(ctx: Components, checker: Checker) -> None:
    """Every `anchors.<name>` whose description holds sizes, ratios and strides, or says that they are
    RetinaNet's defaults.
    """
    names = dict.fromkeys(name.split(".")[0] for name in ctx.names("anchors"))
    for name in names:
        info = ctx.info.get(f"anchors.{name}")
        if isinstance(info, str) and "MODEL.RETINANET" in info:
            cells = build_anchors(get_cfg().MODEL.RETINANET).cell_anchors
            for level in range(len(cells)):
                stored = ctx.arrays[f"anchors.{name}.cell{level}"]
                checker.values(f"{name}.cell{level}", cells[level], stored, 1e-6)
            continue
        assert isinstance(info, dict)
        with checker.section(name):
            _check_levels(ctx, checker, f"anchors.{name}", info)


def _check_levels(ctx: Components, checker: Checker, key: str, info: dict[str, list]) -> None:
    generator = anchor_generator(info)
    grids = [(int(h), int(w)) for h, w in info["grids"]]
    anchors = generator(grids)
    width, height = info["image_size_wh"]
    for name in ctx.names(key):
        stored = ctx.arrays[f"{key}.{name}"]
        if name.startswith("cell"):
            checker.values(name, generator.cell_anchors[int(name[4:])], stored, 1e-6)
        elif name.startswith("grid"):
            checker.values(name, anchors[int(name[4:])], stored, 1e-6)
        else:
            level, straddle = re.fullmatch(r"visible(\d+)\.straddle(-?\d+)", name).groups()  # type: ignore[union-attr]
            level_anchors = anchors[int(level)]
            seen = anchor_generator(info, int(straddle)).visibility(level_anchors, (height, width))
            checker.equal(name, seen, unpack(stored, (len(level_anchors),)))


def check_boxlist(ctx: Components, checker: Checker) -> None:
    """All operations on boxes; sizes and windows are read from the names of the arrays."""
    size = tuple(int(v) for v in re.search(r"=\((\d+),(\d+)\)", ctx.info["boxlist"]).groups())  # type: ignore[union-attr]
    boxes = BoxList(ctx.tensor("boxlist.in"), size)  # type: ignore[arg-type]
    for name in ctx.names("boxlist"):
        if name in ("in", "clip2_in"):
            continue
        stored = ctx.arrays[f"boxlist.{name}"]
        checker.values(name, _box_operation(ctx, boxes, name, stored.shape), stored)


def _box_operation(ctx: Components, boxes: BoxList, name: str, shape: tuple[int, ...]) -> Tensor:
    """The boxes (N, 4), areas (N,) or IoU (N, M) that the array `name` holds."""
    sizes = [int(v) for v in re.findall(r"\d+", name)]
    if name == "xywh":
        return boxes.convert("xywh").bbox
    if name == "area":
        return boxes.area()
    if name == "iou":
        return box_iou(boxes.bbox[: shape[0]], boxes.bbox[shape[0] : shape[0] + shape[1]])
    if name == "flip_lr":
        return boxes.transpose(FLIP_LEFT_RIGHT).bbox
    if name == "flip_tb":
        # The reference lacks the -1 that masks have (a defect that is not inherited): one pixel lower.
        return boxes.transpose(FLIP_TOP_BOTTOM).bbox + torch.tensor([0.0, 1.0, 0.0, 1.0])
    if name == "clip":
        return boxes.clip_to_image(remove_empty=False).bbox
    if name == "clip2_remove_empty":
        return BoxList(ctx.tensor("boxlist.clip2_in"), boxes.size).clip_to_image(remove_empty=True).bbox
    if name.startswith("resize_"):
        return boxes.resize((sizes[0], sizes[1])).bbox
    if name.startswith("xywh_resize_"):
        return boxes.convert("xywh").resize((sizes[0], sizes[1])).bbox
    if name.startswith("crop_"):
        return boxes.crop(sizes).bbox
    if name.startswith("remove_small_"):
        return remove_small_boxes(boxes, sizes[0]).bbox
    raise ValueError(f"no operation known for boxlist.{name}")


def check_coder(ctx: Components, checker: Checker) -> None:
    """Encoding and decoding for every set of weights."""
    reference, proposals = ctx.tensor("coder.reference"), ctx.tensor("coder.proposals")
    for name in ctx.names("coder"):
        kind, _, text = name.partition(".")
        if kind not in ("encode", "decode"):
            continue
        weights = [float(v) for v in (text.split("_") if "_" in text else text)]
        coder = BoxCoder(weights)
        got = coder.encode(reference, proposals)
        if kind == "decode":
            got = coder.decode(ctx.tensor(f"coder.codes.{text}"), proposals)
        checker.values(name, got, ctx.arrays[f"coder.{name}"])


def check_matcher(ctx: Components, checker: Checker) -> None:
    """`matcher.<high>_<low>_<low quality>` on the stored IoU matrix."""
    quality = ctx.tensor("matcher.quality")
    for name in ctx.names("matcher"):
        if name == "quality":
            continue
        high, low, low_quality = name.split("_")
        matcher = Matcher(float(high), float(low), allow_low_quality=low_quality == "True")
        checker.equal(name, matcher(quality), ctx.arrays[f"matcher.{name}"])


def check_levels(ctx: Components, checker: Checker) -> None:
    """FPN level of boxes for P2..P5, counted from 0 in the files."""
    levels = assign_levels(ctx.tensor("levels.boxes"), 2, 5) - 2
    checker.equal("level", levels, ctx.arrays["levels.level"].astype(np.int64))
