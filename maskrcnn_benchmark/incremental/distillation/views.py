"""Views of a training image for which teacher outputs are stored: one size, plain or flipped."""

from __future__ import annotations

from collections.abc import Sequence

from yacs.config import CfgNode

from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.utils.errors import ConfigError


def stored_size(cfg: CfgNode) -> tuple[int, int]:
    """Size of the images of a store, see `DistillHeader.input_size`."""
    rule = SizeRule.from_cfg(cfg, train=True)
    return rule.fixed or (rule.short_sides[0], rule.max_size)


def check_stored_views(cfg: CfgNode, flips: Sequence[int], where: str, switch: str) -> None:
    """Raise ConfigError when training shows images in a view for which no teacher outputs are stored.

    Args:
        flips: stored views, 0 plain and 1 flipped. where: key or folder that lists them.
        switch: key that turns distillation off.
    """
    rule = SizeRule.from_cfg(cfg, train=True)
    if rule.fixed is None and len(rule.short_sides) != 1:
        ranged = max(cfg.INPUT.MIN_SIZE_RANGE_TRAIN) > 0
        key = "MIN_SIZE_RANGE_TRAIN" if ranged else "MIN_SIZE_TRAIN"
        raise ConfigError(
            f"the teacher's outputs are stored for one image size, but INPUT.{key} is "
            f"{tuple(cfg.INPUT[key])}; give one size, set {switch} False, or (with LST.ENABLED) "
            'LST.DISTILL.MODE "online"'
        )
    if cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN > 0:
        raise ConfigError("stored outputs have no upside-down views: set INPUT.VERTICAL_FLIP_PROB_TRAIN 0.0")
    needed = {0.0: {0}, 1.0: {1}}.get(float(cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN), {0, 1})
    if not needed <= set(flips):
        raise ConfigError(
            f"{where} is {tuple(flips)}, but INPUT.HORIZONTAL_FLIP_PROB_TRAIN "
            f"{cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN} needs {tuple(sorted(needed))}"
        )
