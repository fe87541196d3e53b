"""Check the keys of FCOS (Tian et al. 2019), which SipMask has too."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.validators import (
    at_least,
    choice,
    fraction,
    inside_unit_interval,
    require,
)

LEVELS = 5

NORM_GROUPS = 32
"""Groups of the group norms in the towers; two channels each at least: feature maps may be 1 x 1."""

_MINIMA = {
    "NUM_CLASSES": 2,
    "NUM_CONVS": 0,
    "PRE_NMS_TOP_N": 1,
    "LOSS_GAMMA": 0,
    "CENTER_SAMPLING_RADIUS": 0,
}


def check_fcos(cfg: CfgNode) -> None:
    """Raise ConfigError when MODEL.FCOS holds values that an FCOS cannot work with."""
    check_fcos_section(cfg, "MODEL.FCOS", iou_losses=("iou", "linear_iou", "giou"))


def check_fcos_section(cfg: CfgNode, key: str, *, iou_losses: tuple[str, ...]) -> None:
    """Raise ConfigError for what FCOS towers cannot work with.

    Args:
        key: section with the keys of FCOS.
        iou_losses: values that its IOU_LOSS_TYPE may have.
    """
    node = cfg.MODEL[key.removeprefix("MODEL.")]
    strides = tuple(node.FPN_STRIDES)
    require(
        len(strides) == LEVELS
        and strides[0] > 0
        and all(b == 2 * a for a, b in zip(strides, strides[1:], strict=False)),
        f"{key}.FPN_STRIDES needs one stride per level ({LEVELS}), each twice the one before, got "
        f"{list(strides)}",
    )
    width = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    require(
        width % NORM_GROUPS == 0 and width >= 2 * NORM_GROUPS,
        f"MODEL.RESNETS.BACKBONE_OUT_CHANNELS must be a multiple of {NORM_GROUPS} and at least "
        f"{2 * NORM_GROUPS} for the group norm of {key}, got {width}",
    )
    for part, minimum in _MINIMA.items():
        at_least(cfg, f"{key}.{part}", minimum)
    for part in ("LOSS_ALPHA", "INFERENCE_TH", "NMS_TH"):
        fraction(cfg, f"{key}.{part}")
    inside_unit_interval(cfg, f"{key}.PRIOR_PROB")
    choice(cfg, f"{key}.IOU_LOSS_TYPE", iou_losses)
    require(
        not node.USE_DCN_IN_TOWER or node.NUM_CONVS > 0,
        f"{key}.USE_DCN_IN_TOWER needs {key}.NUM_CONVS of at least 1",
    )
