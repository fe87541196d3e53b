"""Values that must fit each other, found before a run starts rather than hours into it.

Names of registered parts are not checked here: the registry that builds them lists what it knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import KINDS, known_kinds
from maskrcnn_benchmark.config.check_input import check_input
from maskrcnn_benchmark.config.check_lst import check_lst
from maskrcnn_benchmark.config.check_one_stage import check_one_stage
from maskrcnn_benchmark.config.classes import has_region_heads, one_stage_model
from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.config.validators import at_least, choice, require
from maskrcnn_benchmark.utils.errors import ConfigError

CHOICES: dict[str, tuple[str, ...]] = {
    "DTYPE": ("float32", "float16", "bfloat16"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
    "SOLVER.LR_SCHEDULER": ("step", "cosine"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.TYPE": ("norm", "value"),
    "DATALOADER.BAD_IMAGE": ("error", "skip"),
    "MODEL.BACKBONE.NORM": ("frozen", "train"),
    "TEST.LVIS_PROTOCOL": ("standard", "fixed"),
    "TEST.VOC_METRIC": ("11point", "area"),
    "DATALOADER.SAMPLER": ("shuffle", "class_aware", "repeat_factor"),
}
MINIMA: dict[str, float] = {
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.ACCUMULATION_STEPS": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.LOG_PERIOD": 1,
    "SOLVER.TEST_PERIOD": 0,
    "SOLVER.KEEP_CHECKPOINTS": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.BASE_LR": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "SOLVER.DCONV_OFFSETS_LR_FACTOR": 0,
    "TEST.IMS_PER_BATCH": 1,
    "TEST.FIXED_DETS_PER_CLASS": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.SIZE_DIVISIBILITY": 0,
    "DATALOADER.REPEAT_THRESHOLD": 0,
    "INPUT.MAX_SIZE_TRAIN": 1,
    "INPUT.MIN_SIZE_TEST": 1,
    "INPUT.MAX_SIZE_TEST": 1,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 1,
    "MODEL.RESNETS.DCN_INTERVAL": 1,
    "MODEL.RESNETS.FROZEN_BN_EPS": 0,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 1,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 1,
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 1,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 1,
}
SHARES = (
    "MODEL.RPN.POSITIVE_FRACTION",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "MODEL.RPN.NMS_THRESH",
    "MODEL.ROI_HEADS.NMS",
    "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD",
    "INPUT.HORIZONTAL_FLIP_PROB_TRAIN",
    "INPUT.VERTICAL_FLIP_PROB_TRAIN",
    "SOLVER.WARMUP_FACTOR",
)


def check_config(cfg: CfgNode) -> None:
    """Check the whole tree.

    Raises:
        ConfigError: one line with the keys at odds, what they hold and what would fit.
    """
    for key, names in CHOICES.items():
        choice(cfg, key, names)
    for key, least in MINIMA.items():
        at_least(cfg, key, least)
    for key in SHARES:
        value = get_value(cfg, key)
        require(0 <= value <= 1, f"{key} must be between 0 and 1, found {value}")
    check_input(cfg)
    _check_datasets(cfg)
    _check_solver(cfg)
    _check_rpn(cfg)
    _check_heads(cfg)
    check_one_stage(cfg)
    _check_group_norm(cfg)
    check_lst(cfg)


def _check_datasets(cfg: CfgNode) -> None:
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            require(isinstance(name, str) and name != "", f"DATASETS.{key} must hold names, found {name!r}")
    for name, entry in cfg.DATASETS.REGISTER.items():
        here = f"DATASETS.REGISTER.{name}"
        missing = [k for k in ("KIND", "ANN_FILE", "IMG_DIR") if not entry.get(k)]
        require(not missing, f"{here} has no {' and no '.join(missing)}")
        require(entry.KIND in KINDS, f"{here}.KIND must be {known_kinds()}, found {entry.KIND!r}")
        classes = entry.get("CLASSES", ())
        named = " or ".join(kind for kind, row in KINDS.items() if row.names_classes)
        require(
            not classes or KINDS[entry.KIND].names_classes,
            f"{here}.CLASSES is for KIND {named}; files of KIND {entry.KIND} name their classes themselves",
        )
        require(len(set(classes)) == len(classes), f"{here}.CLASSES names a class twice")


def _check_solver(cfg: CfgNode) -> None:
    steps = cfg.SOLVER.STEPS
    rising = all(a < b for a, b in zip(steps, steps[1:], strict=False))
    require(rising, f"SOLVER.STEPS must rise, found {tuple(steps)}")
    require(
        not cfg.SOLVER.CLIP_GRADIENTS.ENABLED or cfg.SOLVER.CLIP_GRADIENTS.VALUE > 0,
        f"SOLVER.CLIP_GRADIENTS.VALUE must be above 0, found {cfg.SOLVER.CLIP_GRADIENTS.VALUE}",
    )
    require(
        not cfg.SOLVER.USE_CAS or cfg.DATALOADER.SAMPLER != "repeat_factor",
        "SOLVER.USE_CAS means DATALOADER.SAMPLER class_aware, but it is repeat_factor; set USE_CAS False",
    )


def _check_rpn(cfg: CfgNode) -> None:
    rpn = cfg.MODEL.RPN
    for key in ("RPN", "ROI_HEADS", "RETINANET"):
        low, high = cfg.MODEL[key].BG_IOU_THRESHOLD, cfg.MODEL[key].FG_IOU_THRESHOLD
        require(
            low <= high,
            f"MODEL.{key}.BG_IOU_THRESHOLD ({low}) must not be above MODEL.{key}.FG_IOU_THRESHOLD ({high})",
        )
    if one_stage_model(cfg) is not None:
        return
    if rpn.USE_FPN:
        require(
            len(rpn.ANCHOR_SIZES) == len(rpn.ANCHOR_STRIDE),
            f"MODEL.RPN.USE_FPN needs one anchor size per level: MODEL.RPN.ANCHOR_SIZES has "
            f"{len(rpn.ANCHOR_SIZES)}, MODEL.RPN.ANCHOR_STRIDE {len(rpn.ANCHOR_STRIDE)}",
        )
    else:
        require(
            len(rpn.ANCHOR_STRIDE) == 1,
            f"MODEL.RPN.ANCHOR_STRIDE {tuple(rpn.ANCHOR_STRIDE)} needs MODEL.RPN.USE_FPN True",
        )
        body = cfg.MODEL.BACKBONE.CONV_BODY
        needs_fpn = body.endswith("-FPN") or body.startswith("torchvision/")
        require(not needs_fpn, f"MODEL.BACKBONE.CONV_BODY {body} needs MODEL.RPN.USE_FPN True")


def _check_scales(key: str, scales: Sequence[float]) -> None:
    """Pooling levels are 1/2^k with k rising by one; a box finds its level from the first and last."""
    powers = [-math.log2(s) if s > 0 else math.nan for s in scales]
    first = powers[0] if powers else math.nan
    fits = [math.isclose(p, first + i) and p == round(p) for i, p in enumerate(powers)]
    require(
        bool(fits) and all(fits),
        f"{key} must be halves of each other such as (0.25, 0.125), found {tuple(scales)}",
    )


def _check_heads(cfg: CfgNode) -> None:
    model = cfg.MODEL
    if not has_region_heads(cfg):
        return
    _check_scales("MODEL.ROI_BOX_HEAD.POOLER_SCALES", model.ROI_BOX_HEAD.POOLER_SCALES)
    require(
        len(model.ROI_HEADS.BBOX_REG_WEIGHTS) == 4,
        f"MODEL.ROI_HEADS.BBOX_REG_WEIGHTS needs 4 numbers, found {len(model.ROI_HEADS.BBOX_REG_WEIGHTS)}",
    )
    if model.KEYPOINT_ON:
        _check_keypoints(cfg)
    if not model.MASK_ON:
        return
    mask = model.ROI_MASK_HEAD
    if not mask.SHARE_BOX_FEATURE_EXTRACTOR:
        _check_scales("MODEL.ROI_MASK_HEAD.POOLER_SCALES", mask.POOLER_SCALES)
    if mask.FEATURE_EXTRACTOR == "MaskRCNNFPNFeatureExtractor":
        factor = 1 if mask.PREDICTOR == "MaskRCNNConv1x1Predictor" else 2
        require(
            factor * mask.POOLER_RESOLUTION == mask.RESOLUTION,
            f"MODEL.ROI_MASK_HEAD.RESOLUTION must be {factor} x POOLER_RESOLUTION = "
            f"{factor * mask.POOLER_RESOLUTION} with {mask.PREDICTOR}, found {mask.RESOLUTION}",
        )
    require(
        mask.USE_BBOX2MASK or not mask.USE_MLPMASK,
        "MODEL.ROI_MASK_HEAD.USE_MLPMASK needs MODEL.ROI_MASK_HEAD.USE_BBOX2MASK True",
    )


def _check_keypoints(cfg: CfgNode) -> None:
    node, key = cfg.MODEL.ROI_KEYPOINT_HEAD, "MODEL.ROI_KEYPOINT_HEAD"
    _check_scales(f"{key}.POOLER_SCALES", node.POOLER_SCALES)
    require(
        node.RESOLUTION == 4 * node.POOLER_RESOLUTION,
        f"{key}.RESOLUTION must be 4 x POOLER_RESOLUTION = {4 * node.POOLER_RESOLUTION}, found "
        f"{node.RESOLUTION}",
    )
    require(
        cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN == 0,
        "INPUT.VERTICAL_FLIP_PROB_TRAIN must be 0 with MODEL.KEYPOINT_ON: keypoints have no top-bottom flip",
    )
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
    require(
        len(sigmas) in (0, node.NUM_CLASSES) and all(s > 0 for s in sigmas),
        f"TEST.KEYPOINT_OKS_SIGMAS needs one positive number per keypoint ({node.NUM_CLASSES}), found "
        f"{tuple(sigmas)}",
    )


def _check_group_norm(cfg: CfgNode) -> None:
    node = cfg.MODEL.GROUP_NORM
    groups, width = node.NUM_GROUPS, node.DIM_PER_GP
    if (groups > 0) == (width > 0):
        raise ConfigError(
            f"give either MODEL.GROUP_NORM.NUM_GROUPS ({groups}) or MODEL.GROUP_NORM.DIM_PER_GP ({width}) "
            "and set the other one to -1"
        )
