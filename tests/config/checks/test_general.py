"""config.check: values that do not fit each other."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.utils.errors import ConfigError

MASK = (
    *("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", "False"),
    *("MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR", "MaskRCNNFPNFeatureExtractor"),
)
LST = (
    *(
        "LST.ENABLED",
        "True",
        "LST.ANN_TRAIN",
        "a",
        "LST.ANN_VAL",
        "b",
        "LST.IMG_TRAIN",
        "c",
        "LST.IMG_VAL",
        "d",
    ),
    *("MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNCosinePredictor"),
)
KEYPOINT = ("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.RESOLUTION", "56")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("DTYPE", "half"), "DTYPE must be float32 or float16 or bfloat16, got 'half'"),
        (("SOLVER.LR_SCHEDULER", "poly"), "SOLVER.LR_SCHEDULER must be step or cosine"),
        (("SOLVER.OPTIMIZER", "sgd"), "SOLVER.OPTIMIZER must be SGD or ADAMW, got 'sgd'"),
        (("SOLVER.WARMUP_METHOD", "exp"), "SOLVER.WARMUP_METHOD"),
        (("SOLVER.CLIP_GRADIENTS.TYPE", "max"), "SOLVER.CLIP_GRADIENTS.TYPE must be norm or value"),
        (("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.VALUE", "0"), "must be above 0"),
        (("DATALOADER.BAD_IMAGE", "ignore"), "DATALOADER.BAD_IMAGE must be error or skip"),
        (("SOLVER.MAX_ITER", "0"), "SOLVER.MAX_ITER must be at least 1, got 0"),
        (("SOLVER.BASE_LR", "-1"), "SOLVER.BASE_LR must be at least 0"),
        (("SOLVER.STEPS", "(5, 3)"), r"SOLVER.STEPS must ascend, got \(5, 3\)"),
        (("MODEL.RPN.POSITIVE_FRACTION", "1.5"), "MODEL.RPN.POSITIVE_FRACTION must be between 0 and 1"),
        (("MODEL.ROI_BOX_HEAD.NUM_CLASSES", "1"), "NUM_CLASSES must be at least 2"),
        (("MODEL.GROUP_NORM.DIM_PER_GP", "8"), "give either MODEL.GROUP_NORM.NUM_GROUPS"),
        (("MODEL.GROUP_NORM.NUM_GROUPS", "-1"), "give either MODEL.GROUP_NORM.NUM_GROUPS"),
        (("MODEL.RPN.USE_FPN", "True"), "ANCHOR_SIZES has 5, MODEL.RPN.ANCHOR_STRIDE 1"),
        (("MODEL.RPN.ANCHOR_STRIDE", "(8, 16)"), "needs MODEL.RPN.USE_FPN True"),
        (("MODEL.BACKBONE.CONV_BODY", "R-50-FPN"), "CONV_BODY R-50-FPN needs MODEL.RPN.USE_FPN True"),
        (("MODEL.RPN.BG_IOU_THRESHOLD", "0.8"), "MODEL.RPN.BG_IOU_THRESHOLD .0.8. must not be above"),
        (("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "(0.25, 0.1)"), "POOLER_SCALES must be halves of each other"),
        (("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "(0.125, 0.25)"), "POOLER_SCALES must be halves of each other"),
        (("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "()"), "POOLER_SCALES must be halves of each other"),
        (("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "(0.0,)"), "POOLER_SCALES must be halves of each other"),
        (MASK, r"RESOLUTION must be 2 x POOLER_RESOLUTION = 28 with MaskRCNNC4Predictor, got 14"),
        (
            (*MASK, "MODEL.ROI_MASK_HEAD.RESOLUTION", "28", "MODEL.ROI_MASK_HEAD.USE_MLPMASK", "True"),
            "needs .*BBOX2",
        ),
        (("MODEL.KEYPOINT_ON", "True"), "ROI_KEYPOINT_HEAD.RESOLUTION must be 4 x POOLER_RESOLUTION = 56"),
        ((*KEYPOINT, "INPUT.VERTICAL_FLIP_PROB_TRAIN", "0.5"), "VERTICAL_FLIP_PROB_TRAIN must be 0"),
        ((*KEYPOINT, "TEST.KEYPOINT_OKS_SIGMAS", "(0.1,)"), r"one positive value per keypoint \(17\)"),
        ((*KEYPOINT, "MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES", "()"), "POOLER_SCALES must be halves"),
        (("INPUT.MIN_SIZE_TRAIN", "()"), "INPUT.MIN_SIZE_TRAIN needs one short side or more"),
        (("INPUT.PIXEL_MEAN", "[1.0]"), r"INPUT.PIXEL_MEAN needs one value per colour channel \(3\)"),
        (("INPUT.PIXEL_STD", "[1, 0, 1]"), "INPUT.PIXEL_STD must hold values above 0"),
        (("INPUT.HUE", "0.7"), "INPUT.HUE is a fraction of the colour circle, between 0 and 0.5, got 0.7"),
        (("DATASETS.TRAIN", "(3,)"), "DATASETS.TRAIN must hold names, got 3"),
        (("DATASETS.REGISTER.x.KIND", "lvis"), "DATASETS.REGISTER.x has no ANN_FILE and no IMG_DIR"),
        (
            ("DATASETS.REGISTER", "{'x': {'KIND': 'yolo', 'ANN_FILE': 'a', 'IMG_DIR': 'b'}}"),
            "KIND must be coco, lvis, voc, cityscapes, cityscapes_poly or cityscapes_mask, got 'yolo'",
        ),
        (("LST.ENABLED", "True"), "LST.ENABLED needs LST.ANN_TRAIN, which is empty"),
        ((*LST, "LST.STEP_SIZE", "0"), "LST.STEP_SIZE must be a number of classes from 1 on"),
        ((*LST, "LST.STEP_SIZE", "(3, -1)"), "LST.STEP_SIZE must be a number of classes from 1 on"),
        ((*LST, "LST.PHASES", "(-1,)"), "LST.PHASES must list phases from 0 on"),
        ((*LST, "LST.DISTILL.FLIPS", "(2,)"), "LST.DISTILL.FLIPS must be"),
        ((*LST, "LST.REPLAY.MODE", "file"), "LST.REPLAY.MODE file needs LST.REPLAY.FILE_IMAGES"),
        ((*LST, "MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor"), "LST.DISTILL.ENABLED compares cosines"),
        ((*LST, "LST.STEP_MILESTONES", "(0.7, 0.5)"), "LST.STEP_MILESTONES must ascend"),
        ((*LST, "LST.PHASE_OVERRIDES.3", "['SEDE', 1]"), "LST.PHASE_OVERRIDES.3: unknown key SEDE"),
        ((*LST, "LST.PHASE_OVERRIDES.last", "['SEED', 1]"), "phases are numbered 0 .base., 1, 2"),
        ((*LST, "LST.PHASE_OVERRIDES.3", "5"), r"must be a list \[KEY, VALUE, ...\], got 5"),
        ((*LST, "LST.VAL_IMAGES", "some"), "LST.VAL_IMAGES must be all or positive"),
    ],
)
def test_one_line_with_key_and_fix(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        load_config(None, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        LST,
        (*LST, "LST.DISTILL.ENABLED", "False", "MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor"),
        (*MASK, "MODEL.ROI_MASK_HEAD.RESOLUTION", "28"),
        KEYPOINT,
        (*MASK, "MODEL.ROI_MASK_HEAD.PREDICTOR", "MaskRCNNConv1x1Predictor"),
        ("MODEL.RPN_ONLY", "True", "MODEL.ROI_BOX_HEAD.POOLER_SCALES", "()"),
        ("MODEL.GROUP_NORM.DIM_PER_GP", "8", "MODEL.GROUP_NORM.NUM_GROUPS", "-1"),
        ("SOLVER.STEPS", "()", "DTYPE", "bfloat16"),
    ],
)
def test_valid_settings_pass(overrides: tuple[str, ...]) -> None:
    load_config(None, overrides)
