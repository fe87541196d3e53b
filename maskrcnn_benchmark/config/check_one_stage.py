"""Settings of one-stage models (RetinaNet, FCOS, SipMask) that must fit each other."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.check_retinanet import check_retinanet
from maskrcnn_benchmark.config.classes import ONE_STAGE, one_stage_model
from maskrcnn_benchmark.config.validators import at_least, choice, require

BODY, TORCHVISION = "-FPN-RETINANET", "torchvision/"
LEVELS = 5
BASIS_MULTIPLE = 32
"""SipMask joins P3, P4 and P5 by doubling: the sides of the input must be multiples of the stride of P5."""
SMALLEST_PLANE = 127
"""Six 3x3 convolutions of stride 2 without padding read the masks of SipMask++, at half the input's size."""

NORM_GROUPS = 32
"""Groups of the group norms in the towers of FCOS and SipMask; two channels each: maps may be 1 x 1."""

_IOU_LOSSES = {
    "FCOS": ("iou", "linear_iou", "giou"),
    "SIPMASK": ("iou", "linear_iou", "giou", "inclusive_iou"),
}
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
_SHARES = ("LOSS_ALPHA", "INFERENCE_TH", "NMS_TH")


def check_one_stage(cfg: CfgNode) -> None:
    """Raise ConfigError when a one-stage model meets settings that it cannot work with."""
    body, name = cfg.MODEL.BACKBONE.CONV_BODY, one_stage_model(cfg)
    if name is None:
        keys = " or ".join(f"MODEL.{key}_ON" for key in ONE_STAGE)
        require(not body.endswith(BODY), f"MODEL.BACKBONE.CONV_BODY {body} needs {keys} True")
        return
    switch = f"MODEL.{name}_ON"
    for other in ONE_STAGE:
        both = other != name and cfg.MODEL[f"{other}_ON"]
        require(not both, f"{switch} and MODEL.{other}_ON are True; a model has one head: set one to False")
    require(
        body.endswith(BODY) or body.startswith(TORCHVISION),
        f"{switch} needs a MODEL.BACKBONE.CONV_BODY that ends in {BODY} or begins with {TORCHVISION}, found "
        f"{body}",
    )
    what = "makes its masks itself" if name == "SIPMASK" else "finds boxes alone"
    require(not cfg.MODEL.MASK_ON, f"MODEL.MASK_ON: the model of {switch} {what}; set MODEL.MASK_ON False")
    require(
        not cfg.MODEL.KEYPOINT_ON,
        f"MODEL.KEYPOINT_ON: the model of {switch} finds no keypoints; set MODEL.KEYPOINT_ON False",
    )
    require(not cfg.LST.ENABLED, f"LST.ENABLED needs a two-stage model; set {switch} False")
    if name == "RETINANET":
        check_retinanet(cfg)
    else:
        _check_fcos(cfg, name)
    if name == "SIPMASK":
        _check_sipmask(cfg)


def _check_fcos(cfg: CfgNode, name: str) -> None:
    """What FCOS and SipMask have in common."""
    key, node = f"MODEL.{name}", cfg.MODEL[name]
    strides = tuple(node.FPN_STRIDES)
    require(
        len(strides) == LEVELS
        and strides[0] > 0
        and all(b == 2 * a for a, b in zip(strides, strides[1:], strict=False)),
        f"{key}.FPN_STRIDES needs one stride per level ({LEVELS}), each twice the one before, found "
        f"{list(strides)}",
    )
    width = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    require(
        width % NORM_GROUPS == 0 and width >= 2 * NORM_GROUPS,
        f"MODEL.RESNETS.BACKBONE_OUT_CHANNELS must be a multiple of {NORM_GROUPS} and at least "
        f"{2 * NORM_GROUPS} for the group norm of {key}, found {width}",
    )
    for part, least in (("NUM_CLASSES", 2), ("NUM_CONVS", 0), ("PRE_NMS_TOP_N", 1), ("LOSS_GAMMA", 0)):
        at_least(cfg, f"{key}.{part}", least)
    at_least(cfg, f"{key}.CENTER_SAMPLING_RADIUS", 0)
    for part in _SHARES:
        require(0 <= node[part] <= 1, f"{key}.{part} must be between 0 and 1, found {node[part]}")
    require(0 < node.PRIOR_PROB < 1, f"{key}.PRIOR_PROB must lie between 0 and 1, found {node.PRIOR_PROB}")
    choice(cfg, f"{key}.IOU_LOSS_TYPE", _IOU_LOSSES[name])
    require(
        not node.USE_DCN_IN_TOWER or node.NUM_CONVS > 0,
        f"{key}.USE_DCN_IN_TOWER needs {key}.NUM_CONVS of at least 1",
    )


def _check_sipmask(cfg: CfgNode) -> None:
    key, node = "MODEL.SIPMASK", cfg.MODEL.SIPMASK
    for part, names in _CHOICES.items():
        choice(cfg, f"{key}.{part}", names)
    for part, least in (("NUM_CONVS", 1), ("NUM_BASIS", 1), ("FAST_NMS_TOP_K", 1), ("MASK_WEIGHT_EPS", 0)):
        at_least(cfg, f"{key}.{part}", least)
    require(0 < node.MASK_TH < 1, f"{key}.MASK_TH must lie between 0 and 1, found {node.MASK_TH}")
    require(node.MASK_TRAIN_NMS <= 1, f"{key}.MASK_TRAIN_NMS must be at most 1, found {node.MASK_TRAIN_NMS}")
    require(
        node.DISTANCES == "positive" or node.NORM_REG_TARGETS,
        f"{key}.DISTANCES any needs {key}.NORM_REG_TARGETS True: exponentials are positive",
    )
    require(
        node.IOU_LOSS_TYPE != "inclusive_iou" or node.NORM_REG_TARGETS,
        f"{key}.IOU_LOSS_TYPE inclusive_iou counts in strides; set {key}.NORM_REG_TARGETS True",
    )
    for part in ("TRAIN", "TEST"):
        _check_sides(cfg, part)


def _check_sides(cfg: CfgNode, part: str) -> None:
    """The sides of the network input in training or testing against what the masks need."""
    fixed, multiple = tuple(cfg.INPUT[f"FIXED_SIZE_{part}"]), cfg.DATALOADER.SIZE_DIVISIBILITY
    padded = multiple > 0 and multiple % BASIS_MULTIPLE == 0
    why = f"SipMask needs an input whose sides are multiples of {BASIS_MULTIPLE} (P3 = 2 x P4 = 4 x P5)"
    require(
        padded or any(fixed),
        f"DATALOADER.SIZE_DIVISIBILITY must be a multiple of {BASIS_MULTIPLE}, found {multiple}: {why}",
    )
    require(
        padded or all(side % BASIS_MULTIPLE == 0 for side in fixed),
        f"INPUT.FIXED_SIZE_{part} is {fixed}: {why}; or set DATALOADER.SIZE_DIVISIBILITY {BASIS_MULTIPLE}",
    )
    if cfg.MODEL.SIPMASK.RESCORING:
        shortest = min(fixed) if any(fixed) else _shortest_side(cfg, part)
        plane = -(-shortest // BASIS_MULTIPLE) * BASIS_MULTIPLE // 2
        require(
            plane >= SMALLEST_PLANE,
            f"MODEL.SIPMASK.RESCORING reads mask planes of half the input's size, {SMALLEST_PLANE} or more "
            f"on both sides; images of {shortest} pixels (INPUT, {part.lower()}) give {plane}",
        )


def _shortest_side(cfg: CfgNode, part: str) -> int:
    """The least short side of images that keep their aspect ratio."""
    if part == "TEST":
        return int(cfg.INPUT.MIN_SIZE_TEST)
    drawn = tuple(cfg.INPUT.MIN_SIZE_RANGE_TRAIN)
    return int(min(drawn if min(drawn) > 0 else cfg.INPUT.MIN_SIZE_TRAIN))
