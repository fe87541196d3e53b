"""Keys of FCOS and SipMask that do not fit each other."""

from __future__ import annotations

from typing import Any

import pytest

from maskrcnn_benchmark.config.checks.general import check_config
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.utils.errors import ConfigError

P6P7 = ("MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET")
FCOS = ("MODEL.FCOS_ON", True, *P6P7)
SIPMASK = ("MODEL.SIPMASK_ON", True, *P6P7, "DATALOADER.SIZE_DIVISIBILITY", 32)
REAL_TIME = ("INPUT.FIXED_SIZE_TRAIN", (576, 576), "INPUT.FIXED_SIZE_TEST", (544, 544))
STRIDED = ("MODEL.SIPMASK.NORM_REG_TARGETS", True)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            (*FCOS, "MODEL.RETINANET_ON", True),
            "MODEL.FCOS_ON and MODEL.RETINANET_ON are True, but .* set one to False",
        ),
        ((*FCOS, "MODEL.SIPMASK_ON", True), "FCOS_ON and MODEL.SIPMASK_ON are True"),
        (
            ("MODEL.FCOS_ON", True),
            "R-50-C4 has the neck none, which does not fit MODEL.FCOS_ON: .* ends in -FPN-RETINANET",
        ),
        (
            ("MODEL.SIPMASK_ON", True),
            "not fit MODEL.SIPMASK_ON: set MODEL.NECK fpn_p6p7 with a backbone without",
        ),
        (
            (*FCOS, "MODEL.MASK_ON", True),
            "the model of MODEL.FCOS_ON has no RoI heads; set MODEL.MASK_ON False",
        ),
        ((*SIPMASK, "MODEL.MASK_ON", True), "an RoI mask head, but the model of MODEL.SIPMASK_ON has"),
        ((*SIPMASK, "MODEL.KEYPOINT_ON", True), "has no RoI heads; set MODEL.KEYPOINT_ON False"),
        ((*FCOS, "LST.ENABLED", True), "LST.ENABLED trains in phases, .* set MODEL.FCOS_ON False, or LST.E"),
        (
            (*FCOS, "MODEL.QRY_BALANCE", True),
            "QRY_BALANCE trains in .* set MODEL.FCOS_ON False, or MODEL.QRY",
        ),
        ((*SIPMASK, "MODEL.USE_DISTILL", True), "set MODEL.SIPMASK_ON False, or MODEL.USE_DISTILL False"),
        ((*FCOS, "MODEL.FCOS.FPN_STRIDES", [8, 16, 32, 64]), r"one stride per level \(5\), .* got \[8, 16"),
        ((*FCOS, "MODEL.FCOS.FPN_STRIDES", [8, 16, 32, 64, 96]), "each twice the one before"),
        ((*FCOS, "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 100), "multiple of 32 and at least 64 .* got 100"),
        ((*SIPMASK, "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 32), "for the group norm of MODEL.SIPMASK"),
        ((*FCOS, "MODEL.FCOS.NUM_CLASSES", 1), "FCOS.NUM_CLASSES must be at least 2, got 1"),
        ((*SIPMASK, "MODEL.SIPMASK.NUM_CLASSES", 1), "SIPMASK.NUM_CLASSES must be at least 2"),
        ((*FCOS, "MODEL.FCOS.IOU_LOSS_TYPE", "inclusive_iou"), "must be iou or linear_iou or giou, got"),
        ((*FCOS, "MODEL.FCOS.NMS_TH", 1.5), "FCOS.NMS_TH must be between 0 and 1, got 1.5"),
        ((*FCOS, "MODEL.FCOS.PRIOR_PROB", 1.0), "PRIOR_PROB must lie between 0 and 1"),
        ((*FCOS, "MODEL.FCOS.CENTER_SAMPLING_RADIUS", -1.0), "RADIUS must be at least 0"),
        ((*FCOS, "MODEL.FCOS.USE_DCN_IN_TOWER", True, "MODEL.FCOS.NUM_CONVS", 0), "NUM_CONVS of at least 1"),
        ((*SIPMASK, "MODEL.SIPMASK.NUM_CONVS", 0), "SIPMASK.NUM_CONVS must be at least 1"),
        ((*SIPMASK, "MODEL.SIPMASK.TOWER_NORM", "BN"), "TOWER_NORM must be GN or '', got 'BN'"),
        ((*SIPMASK, "MODEL.SIPMASK.DISTANCES", "all"), "DISTANCES must be positive or any"),
        ((*SIPMASK, "MODEL.SIPMASK.LOSS_NORMALIZER", "x"), "must be global or per_process"),
        ((*SIPMASK, "MODEL.SIPMASK.THRESHOLD_ON", "x"), "must be class or score"),
        ((*SIPMASK, "MODEL.SIPMASK.TOPK_BY", "x"), "must be pair or location"),
        ((*SIPMASK, "MODEL.SIPMASK.NMS_TYPE", "x"), "must be class or fast"),
        ((*SIPMASK, "MODEL.SIPMASK.NMS_COORDINATES", "x"), "must be network or original"),
        ((*SIPMASK, "MODEL.SIPMASK.MASK_RESIZE", "x"), "must be legacy or legacy_axes or exact"),
        ((*SIPMASK, "MODEL.SIPMASK.MASK_TH", 0.0), "MASK_TH must lie between 0 and 1"),
        ((*SIPMASK, "MODEL.SIPMASK.DISTANCES", "any"), "DISTANCES any needs .*NORM_REG_TARGETS True"),
        ((*SIPMASK, "MODEL.SIPMASK.IOU_LOSS_TYPE", "inclusive_iou"), "inclusive_iou counts in strides"),
        ((*SIPMASK, "DATALOADER.SIZE_DIVISIBILITY", 0), "multiple of 32, got 0: SipMask needs an input"),
        ((*SIPMASK, "DATALOADER.SIZE_DIVISIBILITY", 48), "multiple of 32, got 48"),
        (
            (*SIPMASK, *REAL_TIME, "DATALOADER.SIZE_DIVISIBILITY", 0, "INPUT.FIXED_SIZE_TEST", (550, 544)),
            r"FIXED_SIZE_TEST is \(550, 544\): .*set DATALOADER.SIZE_DIVISIBILITY 32",
        ),
        (
            (*SIPMASK, *REAL_TIME, "MODEL.SIPMASK.RESCORING", True, "INPUT.FIXED_SIZE_TEST", (544, 192)),
            r"127 or more on both sides; images of 192 pixels \(INPUT, test\) give 96",
        ),
        (
            (*SIPMASK, "MODEL.SIPMASK.RESCORING", True, "INPUT.MIN_SIZE_RANGE_TRAIN", (200, 300)),
            r"images of 200 pixels \(INPUT, train\) give 112",
        ),
    ],
)
def test_bad_settings(pairs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(clone_with(get_cfg(), pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        FCOS,
        SIPMASK,
        (*SIPMASK, *STRIDED, "MODEL.SIPMASK.DISTANCES", "any", "MODEL.SIPMASK.TOWER_NORM", ""),
        (*SIPMASK, *STRIDED, "MODEL.SIPMASK.IOU_LOSS_TYPE", "inclusive_iou"),
        (*SIPMASK, *REAL_TIME, "DATALOADER.SIZE_DIVISIBILITY", 0, "MODEL.SIPMASK.RESCORING", True),
        (*SIPMASK, "MODEL.SIPMASK.RESCORING", True, "INPUT.MIN_SIZE_TRAIN", (225,)),
        (*FCOS, "MODEL.BACKBONE.CONV_BODY", "torchvision/mobilenet_v2"),
        (*FCOS, "MODEL.RPN_ONLY", True),
    ],
)
def test_good_settings(pairs: tuple[Any, ...]) -> None:
    check_config(clone_with(get_cfg(), pairs))
