"""Settings of RetinaNet that must fit each other."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.validators import at_least, require

_SHARES = ("LOSS_ALPHA", "INFERENCE_TH", "NMS_TH")


def check_retinanet(cfg: CfgNode) -> None:
    """Raise ConfigError when MODEL.RETINANET holds values that a RetinaNet cannot work with."""
    node = cfg.MODEL.RETINANET
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
