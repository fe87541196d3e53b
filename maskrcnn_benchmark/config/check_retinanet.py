"""Settings of one-stage models that must fit each other."""

from __future__ import annotations

from yacs.config import CfgNode

from .rules import at_least, require

BODY, TORCHVISION = "-FPN-RETINANET", "torchvision/"
_SHARES = ("LOSS_ALPHA", "INFERENCE_TH", "NMS_TH")


def check_retinanet(cfg: CfgNode) -> None:
    """Raise ConfigError when MODEL.RETINANET_ON meets settings that it cannot work with."""
    model, node, body = cfg.MODEL, cfg.MODEL.RETINANET, cfg.MODEL.BACKBONE.CONV_BODY
    if not model.RETINANET_ON:
        require(not body.endswith(BODY), f"MODEL.BACKBONE.CONV_BODY {body} needs MODEL.RETINANET_ON True")
        return
    require(
        body.endswith(BODY) or body.startswith(TORCHVISION),
        f"MODEL.RETINANET_ON needs a MODEL.BACKBONE.CONV_BODY that ends in {BODY} or begins with "
        f"{TORCHVISION}, found {body}",
    )
    for key, on in (("MASK_ON", model.MASK_ON), ("KEYPOINT_ON", model.KEYPOINT_ON)):
        require(not on, f"MODEL.{key}: RetinaNet finds boxes alone; set MODEL.{key} False")
    require(not cfg.LST.ENABLED, "LST.ENABLED needs a two-stage model; set MODEL.RETINANET_ON False")
    require(
        len(node.ANCHOR_SIZES) == len(node.ANCHOR_STRIDES),
        f"MODEL.RETINANET.ANCHOR_SIZES has {len(node.ANCHOR_SIZES)} entries, MODEL.RETINANET.ANCHOR_STRIDES "
        f"{len(node.ANCHOR_STRIDES)}: every level needs one of each",
    )
    for key, least in (("NUM_CLASSES", 2), ("SCALES_PER_OCTAVE", 1), ("NUM_CONVS", 0), ("PRE_NMS_TOP_N", 1)):
        at_least(cfg, f"MODEL.RETINANET.{key}", least)
    at_least(cfg, "MODEL.RETINANET.LOSS_GAMMA", 0)
    at_least(cfg, "MODEL.RETINANET.BBOX_REG_BETA", 0)
    for key in _SHARES:
        require(0 <= node[key] <= 1, f"MODEL.RETINANET.{key} must be between 0 and 1, found {node[key]}")
    require(
        0 < node.PRIOR_PROB < 1,
        f"MODEL.RETINANET.PRIOR_PROB must lie between 0 and 1, found {node.PRIOR_PROB}",
    )
    for key in ("BBOX_REG_WEIGHT", "OCTAVE"):
        require(node[key] > 0, f"MODEL.RETINANET.{key} must be above 0, found {node[key]}")
