"""Check the keys of a model against its family's record, then by the family's own check."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.validators import require
from maskrcnn_benchmark.config.compat import CONV_BODY_ENDINGS
from maskrcnn_benchmark.config.family import ModelFamily
from maskrcnn_benchmark.config.models import families, model_family, model_neck

_ROI_PARTS = {"MASK_ON": "an RoI mask head", "KEYPOINT_ON": "an RoI keypoint head"}
_PHASES = ("LST.ENABLED", "MODEL.QRY_BALANCE", "MODEL.USE_DISTILL")


def check_family(cfg: CfgNode) -> None:
    """Raise ConfigError when a model meets keys that its family cannot work with."""
    family = model_family(cfg)
    _check_neck(cfg, family)
    if family.one_stage:
        _check_one_stage(cfg, family)
    if family.size_multiple > 1:
        for part in ("TRAIN", "TEST"):
            _check_sides(cfg, family, part)
    family.check(cfg)


def _check_neck(cfg: CfgNode, family: ModelFamily) -> None:
    neck, conv_body = model_neck(cfg), cfg.MODEL.BACKBONE.CONV_BODY
    if neck in family.necks:
        return
    by = (
        f"MODEL.NECK {neck}"
        if cfg.MODEL.NECK
        else f"MODEL.BACKBONE.CONV_BODY {conv_body} has the neck {neck}"
    )
    endings = [ending for ending, name in CONV_BODY_ENDINGS.items() if name in family.necks]
    ways = f"MODEL.NECK {' or '.join(family.necks)} with a backbone without an ending such as R-50"
    ways += f", or a CONV_BODY that ends in {' or '.join(endings)}" if endings else ""
    fitting = [other.name for other in families() if neck in other.necks]
    ways += f"; it fits MODEL.HEAD {' or '.join(fitting)}" if fitting else ""
    require(False, f"{by}, which does not fit {family.chosen_by(cfg)}: set {ways}")


def _check_one_stage(cfg: CfgNode, family: ModelFamily) -> None:
    """Require that nothing is switched on that needs RoI heads."""
    chosen = family.chosen_by(cfg)
    for key, part in _ROI_PARTS.items():
        require(
            not cfg.MODEL[key],
            f"MODEL.{key} adds {part}, but the model of {chosen} has no RoI heads; set MODEL.{key} False",
        )
    for key in _PHASES:
        section, _, name = key.partition(".")
        require(
            not cfg[section][name],
            f"{key} trains in phases, which needs a two-stage model; set {family.undo(cfg)}, or {key} False",
        )


def _check_sides(cfg: CfgNode, family: ModelFamily, part: str) -> None:
    """Require network inputs in training or testing whose sides are multiples of what the family needs."""
    multiple, fixed = family.size_multiple, tuple(cfg.INPUT[f"FIXED_SIZE_{part}"])
    padded_to = cfg.DATALOADER.SIZE_DIVISIBILITY
    if padded_to > 0 and padded_to % multiple == 0:
        return
    why = f"{family.title} needs an input whose sides are multiples of {multiple}"
    require(
        any(fixed), f"DATALOADER.SIZE_DIVISIBILITY must be a multiple of {multiple}, got {padded_to}: {why}"
    )
    require(
        all(side % multiple == 0 for side in fixed),
        f"INPUT.FIXED_SIZE_{part} is {fixed}: {why}; or set DATALOADER.SIZE_DIVISIBILITY {multiple}",
    )
