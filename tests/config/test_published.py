"""Yaml in the manner of the published files loads unchanged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.config.load import load_config

FPN = """
  RPN:
    USE_FPN: True
    ANCHOR_STRIDE: (4, 8, 16, 32, 64)
    PRE_NMS_TOP_N_TRAIN: 2000
    PRE_NMS_TOP_N_TEST: 1000
    POST_NMS_TOP_N_TEST: 1000
    FPN_POST_NMS_TOP_N_TEST: 1000
"""
LST_STEP = f"""
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  MASK_ON: True
  CLS_AGNOSTIC_BBOX_REG: False
  USE_DISTILL: True
  GENERATE_DISTILL: True
  DISTILL_WEIGHTS_FILE: 'distill_logits_step2_160.json'
  NUM_DISTILL_CLASSES: 430
  QRY_BALANCE: True
  QRY_INDICE_CLS: "classes_qry_step2.json"
  WEIGHT:   ____path____
  FEW_SHOT:
    ScaleCls: 10
  BACKBONE:
    CONV_BODY: "R-50-FPN"
    FREEZE_CONV_BODY_AT: 5
  RESNETS:
    BACKBONE_OUT_CHANNELS: 256
{FPN}
  ROI_HEADS:
    DETECTIONS_PER_IMG: 300
    USE_FPN: True
    SCORE_THRESH: 0.00
    BATCH_SIZE_PER_IMAGE: 200
  ROI_BOX_HEAD:
    POOLER_RESOLUTION: 7
    POOLER_SCALES: (0.25, 0.125, 0.0625, 0.03125)
    POOLER_SAMPLING_RATIO: 2
    FEATURE_EXTRACTOR: "FPN2MLPCosineFeatureExtractor"
    PREDICTOR: "FPNCosinePredictor"
    NUM_CLASSES: 591 # with background
  ROI_MASK_HEAD:
    USE_BBOX2MASK: True
    USE_MLPMASK: True
    POOLER_SCALES: (0.25, 0.125, 0.0625, 0.03125)
    FEATURE_EXTRACTOR: "MaskRCNNFPNFeatureExtractor"
    PREDICTOR: "MaskRCNNC4Predictor"
    POOLER_SAMPLING_RATIO: 2
    RESOLUTION: 28
    SHARE_BOX_FEATURE_EXTRACTOR: False
DATASETS:
  TRAIN: ("lvis_v0.5_train_step2_160",)
  TEST: ("lvis_v0.5_val_step2_160",)
DATALOADER:
  SIZE_DIVISIBILITY: 32
SOLVER:
  BASE_LR: 0.005
  WEIGHT_DECAY: 0.0001
  USE_CAS: True
  STEPS:
  MAX_ITER:
  IMS_PER_BATCH:
  TEST_PERIOD: 5000
OUTPUT_DIR: "./ckps/step2"
TENSORBOARD_EXPERIMENT: "./logs/step2"
"""
# Early files: the FPN's width under BACKBONE, one training size as a number, sections in two parts.
EARLY_GN = f"""
INPUT:
  MIN_SIZE_TRAIN: 800
  MAX_SIZE_TRAIN: 1333
MODEL:
  BACKBONE:
    CONV_BODY: "R-50-FPN"
    OUT_CHANNELS: 256
    FREEZE_CONV_BODY_AT: 0
  RESNETS:
    STRIDE_IN_1X1: False
    TRANS_FUNC: "BottleneckWithGN"
    STEM_FUNC: "StemWithGN"
{FPN}
  ROI_BOX_HEAD:
    USE_GN: True
    POOLER_SCALES: (0.25, 0.125, 0.0625, 0.03125)
    CONV_HEAD_DIM: 256
    NUM_STACKED_CONVS: 4
    FEATURE_EXTRACTOR: "FPNXconv1fcFeatureExtractor"
    PREDICTOR: "FPNPredictor"
  RESNETS:
    NUM_GROUPS: 1
"""
MOBILE = """
MODEL:
  BACKBONE: {CONV_BODY: FBNet}
  FBNET: {ARCH: "xirb16d_dsmask", WIDTH_DIVISOR: 8, DET_HEAD_LAST_SCALE: -1.0, DET_HEAD_BLOCKS: []}
  RPN: {ANCHOR_SIZES: "(16, 32, 64, 128, 256)", ANCHOR_STRIDE: "(16, )", RPN_HEAD: FBNet.rpn_head}
  ROI_BOX_HEAD: {POOLER_RESOLUTION: 6, FEATURE_EXTRACTOR: FBNet.roi_head}
  ROI_MASK_HEAD:
    {POOLER_RESOLUTION: 6, FEATURE_EXTRACTOR: FBNet.roi_head_mask, PREDICTOR: MaskRCNNConv1x1Predictor,
     RESOLUTION: 12, SHARE_BOX_FEATURE_EXTRACTOR: False}
  MASK_ON: True
TEST:
  EXPECTED_RESULTS: [["bbox", "AP", [0.37, 0.01]]]
  EXPECTED_RESULTS_SIGMA_TOL: 4
"""
RETINANET = f"""
MODEL:
  RPN_ONLY: True
  RETINANET_ON: True
  BACKBONE: {{CONV_BODY: R-50-FPN-RETINANET}}
  RESNETS: {{BACKBONE_OUT_CHANNELS: 256}}
{FPN}
    FG_IOU_THRESHOLD: 0.5
    BG_IOU_THRESHOLD: 0.4
  ROI_HEADS: {{USE_FPN: True, BATCH_SIZE_PER_IMAGE: 256}}
  RETINANET: {{SCALES_PER_OCTAVE: 3, STRADDLE_THRESH: -1, FG_IOU_THRESHOLD: 0.5, BG_IOU_THRESHOLD: 0.4}}
"""


@pytest.mark.parametrize("text", [LST_STEP, EARLY_GN, MOBILE, RETINANET])
def test_published_style_loads(tmp_path: Path, text: str) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(text)
    assert load_config(path).is_frozen()


def test_lst_step_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("maskrcnn_benchmark"), "propagate", True)
    path = tmp_path / "step.yaml"
    path.write_text(LST_STEP)
    cfg = load_config(path)
    assert cfg.MODEL.FEW_SHOT.ScaleCls == 10.0 and cfg.MODEL.NUM_DISTILL_CLASSES == 430
    assert cfg.MODEL.WEIGHT == "____path____" and cfg.MODEL.QRY_BALANCE is True
    assert cfg.SOLVER.MAX_ITER == get_cfg().SOLVER.MAX_ITER
    assert "SOLVER.MAX_ITER has no value" in caplog.text


def test_early_names(tmp_path: Path) -> None:
    path = tmp_path / "gn.yaml"
    path.write_text(EARLY_GN)
    cfg = load_config(path)
    assert cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS == 256
    assert cfg.MODEL.RESNETS.TRANS_FUNC == "BottleneckWithGN" and cfg.MODEL.RESNETS.NUM_GROUPS == 1
    assert cfg.INPUT.MIN_SIZE_TRAIN == (800,)


# Differences from the defaults, as the reference program lists them for its own files.
COCO = {
    "DATASETS.TRAIN": ("coco_2014_train", "coco_2014_valminusminival"),
    "DATASETS.TEST": ("coco_2014_minival",),
    "SOLVER.WEIGHT_DECAY": 0.0001,
}
C4 = COCO | {
    "MODEL.WEIGHT": "catalog://ImageNetPretrained/MSRA/R-50",
    "SOLVER.MAX_ITER": 180000,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEPS": (120000, 160000),
    "SOLVER.IMS_PER_BATCH": 8,
}
SCALES = (0.25, 0.125, 0.0625, 0.03125)
FASTER_FPN = COCO | {
    "MODEL.WEIGHT": "catalog://ImageNetPretrained/MSRA/R-50",
    "MODEL.BACKBONE.CONV_BODY": "R-50-FPN",
    "MODEL.RPN.USE_FPN": True,
    "MODEL.RPN.ANCHOR_STRIDE": (4, 8, 16, 32, 64),
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 1000,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 1000,
    "MODEL.ROI_HEADS.USE_FPN": True,
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPFeatureExtractor",
    "MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNPredictor",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": SCALES,
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 256,
    "DATALOADER.SIZE_DIVISIBILITY": 32,
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.STEPS": (60000, 80000),
}
MASK_FPN = FASTER_FPN | {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR": "MaskRCNNFPNFeatureExtractor",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.POOLER_SCALES": SCALES,
    "MODEL.ROI_MASK_HEAD.RESOLUTION": 28,
    "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False,
}
RPN = {
    "MODEL.RPN_ONLY": True,
    "MODEL.WEIGHT": "catalog://ImageNetPretrained/MSRA/R-50",
    "MODEL.BACKBONE.CONV_BODY": "R-50-FPN",
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 256,
    "MODEL.RPN.USE_FPN": True,
    "MODEL.RPN.ANCHOR_STRIDE": (4, 8, 16, 32, 64),
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOP_N_TEST": 2000,
    "DATALOADER.SIZE_DIVISIBILITY": 32,
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.STEPS": (60000, 80000),
}
GN = {
    "MODEL.WEIGHT": "catalog://ImageNetPretrained/MSRA/R-50-GN",
    "MODEL.FPN.USE_GN": True,
    "MODEL.ROI_BOX_HEAD.USE_GN": True,
    "MODEL.ROI_MASK_HEAD.USE_GN": True,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.TRANS_FUNC": "BottleneckWithGN",
    "MODEL.RESNETS.STEM_FUNC": "StemWithGN",
}
R101 = {"MODEL.WEIGHT": "catalog://ImageNetPretrained/MSRA/R-101", "MODEL.BACKBONE.CONV_BODY": "R-101-FPN"}
X101 = {
    "MODEL.WEIGHT": "catalog://ImageNetPretrained/FAIR/20171220/X-101-32x8d",
    "MODEL.BACKBONE.CONV_BODY": "R-101-FPN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NUM_GROUPS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "SOLVER.MAX_ITER": 180000,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEPS": (120000, 160000),
    "SOLVER.IMS_PER_BATCH": 8,
}
FASTER_GN = {key: value for key, value in GN.items() if "MASK" not in key}
SCRATCH = {
    "MODEL.WEIGHT": "",
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": 0,
    "SOLVER.STEPS": (210000, 250000),
    "SOLVER.MAX_ITER": 270000,
}
XCONV = {"MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPNXconv1fcFeatureExtractor"}
KEYPOINT = FASTER_FPN | {
    "MODEL.KEYPOINT_ON": True,
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 2,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES": SCALES,
    "MODEL.ROI_KEYPOINT_HEAD.RESOLUTION": 56,
    "MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False,
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "DATASETS.TRAIN": ("keypoints_coco_2014_train", "keypoints_coco_2014_valminusminival"),
    "DATASETS.TEST": ("keypoints_coco_2014_minival",),
}
QUICK = {
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 256,
    "INPUT.MIN_SIZE_TRAIN": (600,),
    "INPUT.MAX_SIZE_TRAIN": 1000,
    "INPUT.MAX_SIZE_TEST": 1000,
    "DATASETS.TRAIN": ("coco_2014_minival",),
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.STEPS": (1500,),
    "SOLVER.MAX_ITER": 2000,
    "SOLVER.IMS_PER_BATCH": 4,
    "TEST.IMS_PER_BATCH": 2,
}
TWO = {"SOLVER.IMS_PER_BATCH": 2}
QUICK_KEYPOINT = {key: KEYPOINT["DATASETS.TEST"] for key in ("DATASETS.TRAIN", "DATASETS.TEST")} | {
    "INPUT.MIN_SIZE_TRAIN": KEYPOINT["INPUT.MIN_SIZE_TRAIN"]
}
AUGMENTED = {
    "TEST.BBOX_AUG.ENABLED": True,
    "TEST.BBOX_AUG.H_FLIP": True,
    "TEST.BBOX_AUG.SCALES": (400, 500, 600, 700, 900, 1000, 1100, 1200),
    "TEST.BBOX_AUG.MAX_SIZE": 2000,
    "TEST.BBOX_AUG.SCALE_H_FLIP": True,
}
VOC = {
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 21,
    "DATASETS.TRAIN": ("voc_2012_train_cocostyle",),
    "DATASETS.TEST": ("voc_2012_val_cocostyle",),
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEPS": (18000,),
    "SOLVER.MAX_ITER": 24000,
}
CHAMELEON = COCO | {
    "MODEL.BACKBONE.CONV_BODY": "FBNet",
    "MODEL.FBNET.ARCH": "cham_v1a",
    "MODEL.FBNET.WIDTH_DIVISOR": 8,
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 6000,
    "MODEL.RPN.POST_NMS_TOP_N_TEST": 200,
    "MODEL.RPN.RPN_HEAD": "FBNet.rpn_head",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 128,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 6,
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FBNet.roi_head",
    "SOLVER.BASE_LR": 0.045,
    "SOLVER.WARMUP_FACTOR": 0.1,
    "SOLVER.STEPS": (90000, 120000),
    "SOLVER.MAX_ITER": 135000,
    "SOLVER.IMS_PER_BATCH": 96,
    "INPUT.MIN_SIZE_TRAIN": (600,),
    "INPUT.MAX_SIZE_TRAIN": 1000,
    "INPUT.MIN_SIZE_TEST": 600,
    "INPUT.MAX_SIZE_TEST": 1000,
    "INPUT.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "INPUT.PIXEL_STD": [57.375, 57.12, 58.395],
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("e2e_faster_rcnn_R_50_C4_1x", C4),
        ("e2e_mask_rcnn_R_50_C4_1x", C4 | {"MODEL.MASK_ON": True}),
        ("e2e_faster_rcnn_R_50_FPN_1x", FASTER_FPN),
        ("e2e_mask_rcnn_R_50_FPN_1x", MASK_FPN),
        ("e2e_faster_rcnn_R_101_FPN_1x", FASTER_FPN | R101),
        ("e2e_mask_rcnn_R_101_FPN_1x", MASK_FPN | R101),
        ("e2e_faster_rcnn_X_101_32x8d_FPN_1x", FASTER_FPN | X101),
        ("e2e_mask_rcnn_X_101_32x8d_FPN_1x", MASK_FPN | X101),
        ("gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn", MASK_FPN | GN),
        ("gn_baselines/scratch_e2e_mask_rcnn_R_50_FPN_Xconv1fc_3x_gn", MASK_FPN | GN | SCRATCH | XCONV),
        ("gn_baselines/scratch_e2e_faster_rcnn_R_50_FPN_3x_gn", FASTER_FPN | FASTER_GN | SCRATCH),
        ("e2e_keypoint_rcnn_R_50_FPN_1x", KEYPOINT),
        ("quick_schedules/e2e_faster_rcnn_R_50_FPN_quick", FASTER_FPN | QUICK),
        ("quick_schedules/e2e_mask_rcnn_X_101_32x8d_FPN_quick", MASK_FPN | X101 | QUICK | TWO),
        ("quick_schedules/e2e_keypoint_rcnn_R_50_FPN_quick", KEYPOINT | QUICK | QUICK_KEYPOINT),
        ("test_time_aug/e2e_mask_rcnn_R_50_FPN_1x", MASK_FPN | AUGMENTED),
        ("pascal_voc/e2e_mask_rcnn_R_50_FPN_1x_cocostyle", MASK_FPN | VOC),
        ("e2e_faster_rcnn_fbnet_chamv1a_600", CHAMELEON),
    ],
)
def test_own_files_hold_the_published_values(project_root: Path, name: str, expected: dict) -> None:
    defaults = dict(leaves(get_cfg()))
    cfg = load_config(project_root / "configs" / f"{name}.yaml")
    assert {k: v for k, v in leaves(cfg) if v != defaults[k]} == {
        k: v for k, v in expected.items() if v != defaults[k]
    }


def test_own_proposal_file_holds_the_published_values(project_root: Path) -> None:
    # The box head's settings come along with the shared file; without that head they have no effect.
    defaults = dict(leaves(get_cfg()))
    cfg = load_config(project_root / "configs/rpn_R_50_FPN_1x.yaml")
    different = {k: v for k, v in leaves(cfg) if v != defaults[k]}
    assert {k: v for k, v in different.items() if not k.startswith("MODEL.ROI_")} == COCO | RPN


def test_lst_paper_file(project_root: Path) -> None:
    cfg = load_config(project_root / "configs/lst/lvis_v0.5_270_6x160.yaml")
    assert (cfg.LST.BASE_SIZE, cfg.LST.STEP_SIZE, cfg.LST.REPLAY.EPOCHS) == (270, 160, 12)
    assert cfg.LST.SOLVER_BASE.MAX_ITER == 50000 and "MAX_ITER" not in cfg.LST.SOLVER_STEP
    assert cfg.SOLVER.WEIGHT_DECAY == 0.0001 and cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG == 300
