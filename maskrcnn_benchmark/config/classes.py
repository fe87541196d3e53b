"""What kind of model a configuration asks for, and which key holds its number of classes."""

from __future__ import annotations

from yacs.config import CfgNode

from .keys import get_value


def class_count_key(cfg: CfgNode) -> str | None:
    """The key of the number of classes with background; None for a model of proposals, which knows none."""
    if cfg.MODEL.RETINANET_ON:
        return "MODEL.RETINANET.NUM_CLASSES"
    return None if cfg.MODEL.RPN_ONLY else "MODEL.ROI_BOX_HEAD.NUM_CLASSES"


def class_count(cfg: CfgNode) -> int | None:
    """The number of classes with background, None for a model of proposals."""
    key = class_count_key(cfg)
    return None if key is None else get_value(cfg, key)


def has_region_heads(cfg: CfgNode) -> bool:
    """Whether the model is two-stage, with a box head."""
    return not (cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON)
