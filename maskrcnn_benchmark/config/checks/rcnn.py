"""Check the keys of two-stage models: RPN and RoI heads (Ren et al. 2015, He et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.validators import iou_thresholds, pooler_scales, require
from maskrcnn_benchmark.config.compat import NO_NECK, chosen_neck
from maskrcnn_benchmark.config.family import Pitfall

_DETECTIONS = "MODEL.ROI_HEADS.DETECTIONS_PER_IMG"


def check_rpn(cfg: CfgNode) -> None:
    """Raise ConfigError when MODEL.RPN holds values that a region proposal network cannot work with."""
    rpn = cfg.MODEL.RPN
    iou_thresholds(cfg, "MODEL.RPN")
    if rpn.USE_FPN:
        require(
            len(rpn.ANCHOR_SIZES) == len(rpn.ANCHOR_STRIDE),
            f"MODEL.RPN.USE_FPN needs one anchor size per level: MODEL.RPN.ANCHOR_SIZES has "
            f"{len(rpn.ANCHOR_SIZES)}, MODEL.RPN.ANCHOR_STRIDE {len(rpn.ANCHOR_STRIDE)}",
        )
        return
    require(
        len(rpn.ANCHOR_STRIDE) == 1,
        f"MODEL.RPN.ANCHOR_STRIDE {tuple(rpn.ANCHOR_STRIDE)} needs MODEL.RPN.USE_FPN True",
    )
    neck = chosen_neck(cfg.MODEL, default="fpn")
    require(
        neck == NO_NECK,
        f"MODEL.BACKBONE.CONV_BODY {cfg.MODEL.BACKBONE.CONV_BODY} needs MODEL.RPN.USE_FPN True (neck {neck})",
    )


def check_rcnn(cfg: CfgNode) -> None:
    """Raise ConfigError when RPN, box, mask or keypoint head hold values that do not fit each other."""
    check_rpn(cfg)
    model = cfg.MODEL
    iou_thresholds(cfg, "MODEL.ROI_HEADS")
    pooler_scales("MODEL.ROI_BOX_HEAD.POOLER_SCALES", model.ROI_BOX_HEAD.POOLER_SCALES)
    require(
        len(model.ROI_HEADS.BBOX_REG_WEIGHTS) == 4,
        f"MODEL.ROI_HEADS.BBOX_REG_WEIGHTS needs 4 values, got {len(model.ROI_HEADS.BBOX_REG_WEIGHTS)}",
    )
    if model.KEYPOINT_ON:
        _check_keypoints(cfg)
    if model.MASK_ON:
        _check_masks(cfg)


def _check_masks(cfg: CfgNode) -> None:
    mask = cfg.MODEL.ROI_MASK_HEAD
    if not mask.SHARE_BOX_FEATURE_EXTRACTOR:
        pooler_scales("MODEL.ROI_MASK_HEAD.POOLER_SCALES", mask.POOLER_SCALES)
    if mask.FEATURE_EXTRACTOR == "MaskRCNNFPNFeatureExtractor":
        factor = 1 if mask.PREDICTOR == "MaskRCNNConv1x1Predictor" else 2
        require(
            factor * mask.POOLER_RESOLUTION == mask.RESOLUTION,
            f"MODEL.ROI_MASK_HEAD.RESOLUTION must be {factor} x POOLER_RESOLUTION = "
            f"{factor * mask.POOLER_RESOLUTION} with {mask.PREDICTOR}, got {mask.RESOLUTION}",
        )
    require(
        mask.USE_BBOX2MASK or not mask.USE_MLPMASK,
        "MODEL.ROI_MASK_HEAD.USE_MLPMASK needs MODEL.ROI_MASK_HEAD.USE_BBOX2MASK True",
    )


def _check_keypoints(cfg: CfgNode) -> None:
    node, key = cfg.MODEL.ROI_KEYPOINT_HEAD, "MODEL.ROI_KEYPOINT_HEAD"
    pooler_scales(f"{key}.POOLER_SCALES", node.POOLER_SCALES)
    require(
        node.RESOLUTION == 4 * node.POOLER_RESOLUTION,
        f"{key}.RESOLUTION must be 4 x POOLER_RESOLUTION = {4 * node.POOLER_RESOLUTION}, got "
        f"{node.RESOLUTION}",
    )
    require(
        cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN == 0,
        "INPUT.VERTICAL_FLIP_PROB_TRAIN must be 0 with MODEL.KEYPOINT_ON: keypoints have no top-bottom flip",
    )
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
    require(
        len(sigmas) in (0, node.NUM_CLASSES) and all(s > 0 for s in sigmas),
        f"TEST.KEYPOINT_OKS_SIGMAS needs one positive value per keypoint ({node.NUM_CLASSES}), got "
        f"{tuple(sigmas)}",
    )


def rcnn_pitfalls(cfg: CfgNode) -> Iterator[Pitfall]:
    """Yield combinations that run, but cost memory, time or AP in testing."""
    if cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG <= 0:
        yield Pitfall(
            "the number of detections per image has no limit: testing may need very much memory and time",
            (_DETECTIONS, "MODEL.ROI_HEADS.SCORE_THRESH"),
            f"set {_DETECTIONS} 100 (COCO) or 300 (LVIS)",
        )
    if cfg.MODEL.MASK_ON and cfg.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS:
        yield Pitfall(
            "masks are pasted into the resized image inside the model, then resized again for the test: "
            "slower, and a lower mask AP",
            ("MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS",),
            "set MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS False; testing and drawing paste at the original size",
        )
