"""Check the keys of SipMask (Cao et al. 2020)."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.fcos import check_fcos_section
from maskrcnn_benchmark.config.checks.validators import at_least, choice, inside_unit_interval, require

SIZE_MULTIPLE = 32
"""P3, P4 and P5 are joined by doubling: input sides are multiples of the stride of P5."""

MIN_MASK_SIDE = 127
"""Six 3x3 convolutions of stride 2 without padding read the masks of SipMask++, at half the input's size."""

_KEY = "MODEL.SIPMASK"
_CHOICES = {
    "TOWER_NORM": ("GN", ""),
    "DISTANCES": ("positive", "any"),
    "LOSS_NORMALIZER": ("global", "per_process"),
    "THRESHOLD_ON": ("class", "score"),
    "TOPK_BY": ("pair", "location"),
    "NMS_TYPE": ("class", "fast"),
    "NMS_COORDINATES": ("network", "original"),
    "MASK_RESIZE": ("legacy", "legacy_axes", "exact"),
}
_MINIMA = {"NUM_CONVS": 1, "NUM_BASIS": 1, "FAST_NMS_TOP_K": 1, "MASK_WEIGHT_EPS": 0}


def check_sipmask(cfg: CfgNode) -> None:
    """Raise ConfigError when MODEL.SIPMASK holds values that a SipMask cannot work with."""
    node = cfg.MODEL.SIPMASK
    check_fcos_section(cfg, _KEY, iou_losses=("iou", "linear_iou", "giou", "inclusive_iou"))
    for part, names in _CHOICES.items():
        choice(cfg, f"{_KEY}.{part}", names)
    for part, minimum in _MINIMA.items():
        at_least(cfg, f"{_KEY}.{part}", minimum)
    inside_unit_interval(cfg, f"{_KEY}.MASK_TH")
    require(node.MASK_TRAIN_NMS <= 1, f"{_KEY}.MASK_TRAIN_NMS must be at most 1, got {node.MASK_TRAIN_NMS}")
    require(
        node.DISTANCES == "positive" or node.NORM_REG_TARGETS,
        f"{_KEY}.DISTANCES any needs {_KEY}.NORM_REG_TARGETS True: exponentials are positive",
    )
    require(
        node.IOU_LOSS_TYPE != "inclusive_iou" or node.NORM_REG_TARGETS,
        f"{_KEY}.IOU_LOSS_TYPE inclusive_iou counts in strides; set {_KEY}.NORM_REG_TARGETS True",
    )
    if node.RESCORING:
        _check_mask_sides(cfg, "TRAIN")
        _check_mask_sides(cfg, "TEST")


def _check_mask_sides(cfg: CfgNode, part: str) -> None:
    """Require masks that the mask scoring layers can read in training or testing."""
    fixed = tuple(cfg.INPUT[f"FIXED_SIZE_{part}"])
    shortest = min(fixed) if any(fixed) else _shortest_side(cfg, part)
    side = -(-shortest // SIZE_MULTIPLE) * SIZE_MULTIPLE // 2
    require(
        side >= MIN_MASK_SIDE,
        f"{_KEY}.RESCORING reads masks of half the input's size, {MIN_MASK_SIDE} or more on both sides; "
        f"images of {shortest} pixels (INPUT, {part.lower()}) give {side}",
    )


def _shortest_side(cfg: CfgNode, part: str) -> int:
    """Return the smallest short side of images that keep their aspect ratio."""
    if part == "TEST":
        return int(cfg.INPUT.MIN_SIZE_TEST)
    sampled = tuple(cfg.INPUT.MIN_SIZE_RANGE_TRAIN)
    return int(min(sampled if min(sampled) > 0 else cfg.INPUT.MIN_SIZE_TRAIN))
