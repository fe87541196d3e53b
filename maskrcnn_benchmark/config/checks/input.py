"""Check the keys of image sizes, colours and augmentation (node INPUT)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.validators import at_least, choice, require

INTERPOLATIONS = ("pillow", "opencv")
EXIF = ("refuse", "apply", "ignore")
OFF = (-1, -1)
"""MIN_SIZE_RANGE_TRAIN when MIN_SIZE_TRAIN counts."""


def check_input(cfg: CfgNode) -> None:
    """Raise ConfigError for impossible sizes, colours and augmentation of images."""
    node = cfg.INPUT
    require(
        len(node.MIN_SIZE_TRAIN) > 0 and all(s >= 1 for s in node.MIN_SIZE_TRAIN),
        f"INPUT.MIN_SIZE_TRAIN needs one short side or more, each at least 1, got "
        f"{tuple(node.MIN_SIZE_TRAIN)}",
    )
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        value = node[key]
        require(len(value) == 3, f"INPUT.{key} needs one value per colour channel (3), got {list(value)}")
    hue = node.HUE
    require(0 <= hue <= 0.5, f"INPUT.HUE is a fraction of the colour circle, between 0 and 0.5, got {hue}")
    require(all(s > 0 for s in node.PIXEL_STD), "INPUT.PIXEL_STD must hold values above 0")
    choice(cfg, "INPUT.INTERPOLATION", INTERPOLATIONS)
    choice(cfg, "INPUT.EXIF", EXIF)
    at_least(cfg, "INPUT.MAX_PIXELS", 1)
    depth = tuple(node.DEPTH_RANGE)
    require(
        depth == () or (_numbers(depth) and len(depth) == 2 and depth[0] < depth[1]),
        f"INPUT.DEPTH_RANGE needs the value of black and the larger one of white, or () for the range of the "
        f"type, got {depth}",
    )
    _check_sizes(node)
    _check_ssd(cfg)


def _check_sizes(node: CfgNode) -> None:
    sides = tuple(node.MIN_SIZE_RANGE_TRAIN)
    require(
        sides == OFF or (_whole(sides, 2) and 1 <= sides[0] <= sides[1]),
        f"INPUT.MIN_SIZE_RANGE_TRAIN needs the minimum and the maximum short side, both at least 1, or {OFF} "
        f"for INPUT.MIN_SIZE_TRAIN, got {sides}",
    )
    for key in ("FIXED_SIZE_TRAIN", "FIXED_SIZE_TEST"):
        size = tuple(node[key])
        require(
            _whole(size, 2) and (size == (0, 0) or min(size) >= 1),
            f"INPUT.{key} needs a width and a height, both at least 1, or (0, 0) to keep the ratio of "
            f"sides, got {size}",
        )


def _check_ssd(cfg: CfgNode) -> None:
    node, key = cfg.INPUT.SSD_AUG, "INPUT.SSD_AUG"
    at_least(cfg, f"{key}.BRIGHTNESS_DELTA", 0)
    at_least(cfg, f"{key}.HUE_DELTA", 0)
    for part, minimum in (("CONTRAST_RANGE", 0), ("SATURATION_RANGE", 0), ("EXPAND_RANGE", 1)):
        value = tuple(node[part])
        require(
            len(value) == 2 and minimum <= value[0] <= value[1] < math.inf,
            f"{key}.{part} needs a minimum and a maximum factor from {minimum} on, got {value}",
        )
    require(
        all(0 < iou <= 1 for iou in node.CROP_MIN_IOUS),
        f"{key}.CROP_MIN_IOUS must lie above 0 and at most at 1, got {tuple(node.CROP_MIN_IOUS)}",
    )
    require(
        0 < node.CROP_MIN_SIDE <= 1,
        f"{key}.CROP_MIN_SIDE must lie above 0 and at most at 1, got {node.CROP_MIN_SIDE}",
    )
    if not node.ENABLED:
        return
    for name, on in (
        ("LST.ENABLED", cfg.LST.ENABLED),
        ("MODEL.QRY_BALANCE", cfg.MODEL.QRY_BALANCE),
        ("MODEL.USE_DISTILL", cfg.MODEL.USE_DISTILL),
    ):
        require(
            not on,
            f"{key}.ENABLED crops objects away that {name} samples images or stores outputs for; set "
            f"{key}.ENABLED False",
        )


def _whole(values: Sequence[Any], count: int) -> bool:
    """Return whether `values` are `count` whole numbers."""
    return len(values) == count and all(isinstance(v, int) for v in values)


def _numbers(values: Sequence[Any]) -> bool:
    """Return whether all `values` are finite numbers."""
    return all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e300 and v == v for v in values
    )
