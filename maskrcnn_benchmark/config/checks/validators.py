"""Building blocks of config checks: each raises ConfigError with the key, its value and what would fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from yacs.config import CfgNode

from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.text import shortened


def require(condition: bool, text: str) -> None:
    """Raise `ConfigError(text)` unless the condition holds."""
    if not condition:
        raise ConfigError(text)


def choice(cfg: CfgNode, key: str, names: tuple[str, ...]) -> None:
    """Require the value of `key` to be one of `names`."""
    value = get_value(cfg, key)
    known = " or ".join(name or "''" for name in names)
    require(value in names, f"{key} must be {known}, got {shortened(value)}")


def at_least(cfg: CfgNode, key: str, minimum: float) -> None:
    """Require the value of `key` to be at least `minimum`, and not NaN."""
    value = get_value(cfg, key)
    require(value >= minimum, f"{key} must be at least {minimum}, got {value}")


def fraction(cfg: CfgNode, key: str) -> None:
    """Require the value of `key` to lie between 0 and 1, both included."""
    value = get_value(cfg, key)
    require(0 <= value <= 1, f"{key} must be between 0 and 1, got {value}")


def inside_unit_interval(cfg: CfgNode, key: str) -> None:
    """Require the value of `key` to lie between 0 and 1, both excluded."""
    value = get_value(cfg, key)
    require(0 < value < 1, f"{key} must lie between 0 and 1, got {value}")


def iou_thresholds(cfg: CfgNode, section: str) -> None:
    """Require BG_IOU_THRESHOLD of a section to be at most its FG_IOU_THRESHOLD."""
    node = get_value(cfg, section)
    low, high = node.BG_IOU_THRESHOLD, node.FG_IOU_THRESHOLD
    require(
        low <= high,
        f"{section}.BG_IOU_THRESHOLD ({low}) must not be above {section}.FG_IOU_THRESHOLD ({high})",
    )


def pooler_scales(key: str, scales: Sequence[float]) -> None:
    """Require scales 1/2^k with k ascending by one: RoI pooling computes levels from first and last."""
    powers = [-math.log2(s) if s > 0 else math.nan for s in scales]
    first = powers[0] if powers else math.nan
    fits = [math.isclose(p, first + i) and p == round(p) for i, p in enumerate(powers)]
    require(
        bool(fits) and all(fits),
        f"{key} must be halves of each other such as (0.25, 0.125), got {tuple(scales)}",
    )
