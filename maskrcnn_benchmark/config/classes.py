"""What kind of model a configuration asks for, and which key holds its number of classes."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.keys import get_value

ONE_STAGE = ("RETINANET", "FCOS", "SIPMASK")
"""Sections of MODEL of the one-stage models; MODEL.<section>_ON chooses one of them."""


def one_stage_model(cfg: CfgNode) -> str | None:
    """The section of MODEL of the one-stage model that is chosen; None for two-stage models."""
    return next((name for name in ONE_STAGE if cfg.MODEL[f"{name}_ON"]), None)


def class_count_key(cfg: CfgNode) -> str | None:
    """The key of the number of classes with background; None for a model of proposals, which knows none."""
    one_stage = one_stage_model(cfg)
    if one_stage is not None:
        return f"MODEL.{one_stage}.NUM_CLASSES"
    return None if cfg.MODEL.RPN_ONLY else "MODEL.ROI_BOX_HEAD.NUM_CLASSES"


def class_count(cfg: CfgNode) -> int | None:
    """The number of classes with background, None for a model of proposals."""
    key = class_count_key(cfg)
    return None if key is None else get_value(cfg, key)


def has_region_heads(cfg: CfgNode) -> bool:
    """Whether the model is two-stage, with a box head."""
    return not cfg.MODEL.RPN_ONLY and one_stage_model(cfg) is None


def finds_masks(cfg: CfgNode) -> bool:
    """Whether detections come with masks: those of the mask head, or of SipMask."""
    return cfg.MODEL.SIPMASK_ON or (cfg.MODEL.MASK_ON and has_region_heads(cfg))
