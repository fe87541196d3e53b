"""Checks of the input pipeline: resizing, pixels, batches, samplers."""

from __future__ import annotations

import random
import re

import numpy as np
import torch
from PIL import Image

from checks.checker import Checker
from checks.core.inputs import Components
from checks.fill import image
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data.samplers.published import (
    DistributedSampler,
    GroupedBatchSampler,
    IterationBatchSampler,
    aspect_groups,
)
from maskrcnn_benchmark.data.transforms.build import build_transforms
from maskrcnn_benchmark.data.transforms.sizes import resized_size
from maskrcnn_benchmark.structures.image_list import to_image_list

PIXEL_STEP = 7


def check_resize_table(ctx: Components, checker: Checker) -> None:
    """Size after resizing, for every row of the table."""
    table = ctx.info["resize_table"]
    columns = {name: i for i, name in enumerate(table["columns"])}
    got, expected = [], []
    for row in table["rows"]:
        w, h, low, high = (int(row[columns[name]]) for name in ("w", "h", "min", "max"))
        got.append(list(resized_size(w, h, low, high)))
        expected.append([row[columns["out_w"]], row[columns["out_h"]]])
    checker.equal("sizes", got, expected)


def check_pixels(ctx: Components, checker: Checker) -> None:
    """The test transform of a made-up image; the tensor is stored at every seventh pixel."""
    info = ctx.info["pre"]
    name, height, width = re.search(r"image\('([^']+)',(\d+),(\d+)\)", info["image"]).groups()  # type: ignore[union-attr]
    pil_image = Image.fromarray(np.round(image(name, int(height), int(width))).astype(np.uint8))
    for low, high, shape in info["sizes"]:
        cfg = get_cfg()
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = low, high
        tensor = build_transforms(cfg, train=False)(pil_image, None, random.Random(0))[0]
        checker.equal(f"{low}_{high}.shape", list(tensor.shape), shape)
        stored = ctx.arrays[f"pre.{low}_{high}.sample"]
        checker.values(f"{low}_{high}.sample", tensor[:, ::PIXEL_STEP, ::PIXEL_STEP], stored)


def check_image_list(ctx: Components, checker: Checker) -> None:
    """Shapes of padded batches, `batch_div<n>`."""
    info = ctx.info["image_list"]
    images = [torch.ones(tuple(shape)) for shape in info["inputs"]]
    for key in info:
        if key.startswith("batch_div"):
            batch = to_image_list(images, int(key.removeprefix("batch_div")))
            checker.equal(key, list(batch.tensors.shape), info[key])
            checker.equal(f"{key}.image_sizes", batch.image_sizes, info["image_sizes_hw"])
            kept = sum(float(part.sum()) for part in images)
            checker.equal(f"{key}.padding_is_zero", float(batch.tensors.sum()), kept)


def check_samplers(ctx: Components, checker: Checker) -> None:
    """Grouped batches of one pass, and a number of iterations from a start."""
    for number, case in enumerate(ctx.info["samplers"]):
        batches = GroupedBatchSampler(
            case["order"], case["group_ids"], case["batch_size"], case["drop_uneven"]
        )
        checker.same(f"{number}.batches", list(batches), case["batches"])
        for key in case:
            match = re.fullmatch(r"iterations(\d+)(?:_start(\d+))?", key)
            if match:
                sampler = IterationBatchSampler(batches, int(match[1]), int(match[2] or 0))
                checker.same(f"{number}.{key}", list(sampler), case[key])


def check_distributed_sampler(ctx: Components, checker: Checker) -> None:
    """Indices of one process."""
    for number, case in enumerate(ctx.info["distributed_sampler"]):
        sampler = DistributedSampler(case["n"], case["replicas"], case["rank"], case["shuffle"])
        sampler.set_epoch(case["epoch"])
        checker.equal(str(number), list(sampler), case["indices"])


def check_aspect_groups(ctx: Components, checker: Checker) -> None:
    """Group of every ratio height / width with one bin at 1."""
    info = ctx.info["aspect_groups"]
    checker.equal("bins1", aspect_groups(info["ratios_h_over_w"]), info["groups_bins1"])
