"""Check the keys of RetinaNet (Lin et al. 2017)."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.validators import (
    at_least,
    fraction,
    inside_unit_interval,
    iou_thresholds,
    require,
)

_KEY = "MODEL.RETINANET"
_MINIMA = {
    "NUM_CLASSES": 2,
    "SCALES_PER_OCTAVE": 1,
    "NUM_CONVS": 0,
    "PRE_NMS_TOP_N": 1,
    "LOSS_GAMMA": 0,
    "BBOX_REG_BETA": 0,
}


def check_retinanet(cfg: CfgNode) -> None:
    """Raise ConfigError when MODEL.RETINANET holds values that a RetinaNet cannot work with."""
    node = cfg.MODEL.RETINANET
    require(
        len(node.ANCHOR_SIZES) == len(node.ANCHOR_STRIDES),
        f"{_KEY}.ANCHOR_SIZES has {len(node.ANCHOR_SIZES)} entries, {_KEY}.ANCHOR_STRIDES "
        f"{len(node.ANCHOR_STRIDES)}: every level needs one of each",
    )
    for key, minimum in _MINIMA.items():
        at_least(cfg, f"{_KEY}.{key}", minimum)
    for key in ("LOSS_ALPHA", "INFERENCE_TH", "NMS_TH"):
        fraction(cfg, f"{_KEY}.{key}")
    inside_unit_interval(cfg, f"{_KEY}.PRIOR_PROB")
    for key in ("BBOX_REG_WEIGHT", "OCTAVE"):
        require(node[key] > 0, f"{_KEY}.{key} must be above 0, got {node[key]}")
    iou_thresholds(cfg, _KEY)
