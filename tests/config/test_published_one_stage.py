"""The files of FCOS and SipMask hold the published values: yaml and Python files of three repositories."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.config.load import load_config

IMAGES = 117266  # of coco_2017_train with objects
# Differences from the defaults.
COMMON = {
    "MODEL.RPN_ONLY": True,
    "MODEL.WEIGHT": "catalog://ImageNetPretrained/MSRA/R-50",
    "MODEL.BACKBONE.CONV_BODY": "R-50-FPN-RETINANET",
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 256,
    "MODEL.RETINANET.USE_C5": False,
    "DATALOADER.SIZE_DIVISIBILITY": 32,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.STEPS": (60000, 80000),
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.WARMUP_METHOD": "constant",
}
FCOS = COMMON | {
    "MODEL.FCOS_ON": True,
    "DATASETS.TRAIN": ("coco_2014_train", "coco_2014_valminusminival"),
    "DATASETS.TEST": ("coco_2014_minival",),
}
RANGE = {"INPUT.MIN_SIZE_RANGE_TRAIN": (640, 800)}
TWICE = RANGE | {"SOLVER.STEPS": (120000, 160000), "SOLVER.MAX_ITER": 180000}
R101 = {
    "MODEL.WEIGHT": "catalog://ImageNetPretrained/MSRA/R-101",
    "MODEL.BACKBONE.CONV_BODY": "R-101-FPN-RETINANET",
}
DCN = {
    "MODEL.RESNETS.STAGE_WITH_DCN": (False, True, True, True),
    "MODEL.RESNETS.WITH_MODULATED_DCN": True,
}
IN_TOWER = {"MODEL.FCOS.USE_DCN_IN_TOWER": True}


def _improved(section: str) -> dict[str, Any]:
    values = {"NORM_REG_TARGETS": True, "CENTERNESS_ON_REG": True, "CENTER_SAMPLING_RADIUS": 1.5}
    return {f"MODEL.{section}.{key}": value for key, value in (values | {"IOU_LOSS_TYPE": "giou"}).items()}


def _resnext(groups: int, width: int) -> dict[str, Any]:
    return R101 | {
        "MODEL.WEIGHT": f"catalog://ImageNetPretrained/FAIR/20171220/X-101-{groups}x{width}d",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": width,
    }


IMPROVED = FCOS | _improved("FCOS")
SIPMASK = (
    COMMON
    | _improved("SIPMASK")
    | {
        "MODEL.SIPMASK_ON": True,
        "DATASETS.TRAIN": ("coco_2017_train",),
        "DATASETS.TEST": ("coco_2017_val",),
    }
)
MMDET = SIPMASK | {
    "MODEL.RESNETS.FROZEN_BN_EPS": 1e-5,
    "MODEL.SIPMASK.TOWER_BIAS": False,
    "MODEL.SIPMASK.ALIGN_BIAS": False,
    "MODEL.SIPMASK.DISTANCES": "any",
    "MODEL.SIPMASK.IOU_LOSS_TYPE": "inclusive_iou",
    "MODEL.SIPMASK.LOSS_NORMALIZER": "per_process",
    "MODEL.SIPMASK.MASK_TRAIN_NMS": 0.0,
    "MODEL.SIPMASK.MASK_LOSS_HALVING": False,
    "MODEL.SIPMASK.MASK_WEIGHT_EPS": 1e-4,
    "MODEL.SIPMASK.SCORE_SQRT": False,
    "MODEL.SIPMASK.TOPK_BY": "location",
    "MODEL.SIPMASK.NMS_TH": 0.5,
    "MODEL.SIPMASK.NMS_COORDINATES": "original",
    "INPUT.INTERPOLATION": "opencv",
}
REAL_TIME = MMDET | {
    "MODEL.SIPMASK.NUM_CONVS": 2,
    "MODEL.SIPMASK.NMS_TYPE": "fast",
    "MODEL.SIPMASK.THRESHOLD_ON": "score",
    "MODEL.SIPMASK.INFERENCE_TH": 0.1,
    "MODEL.SIPMASK.MASK_RESIZE": "legacy_axes",
    "INPUT.FIXED_SIZE_TRAIN": (576, 576),
    "INPUT.FIXED_SIZE_TEST": (544, 544),
    "INPUT.SSD_AUG.ENABLED": True,
    "SOLVER.IMS_PER_BATCH": 32,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.WEIGHT_DECAY_BIAS": 0.0001,
}
NO_NORM = {"MODEL.SIPMASK.TOWER_NORM": "", "MODEL.SIPMASK.TOWER_BIAS": True}
PLUSPLUS = {
    "MODEL.RESNETS.STAGE_WITH_DCN": (False, True, True, True),
    "MODEL.RESNETS.DCN_INTERVAL": 3,
    "MODEL.SIPMASK.RESCORING": True,
}


def _epochs(batch: int, epochs: tuple[int, int, int], repeat: int = 1) -> dict[str, Any]:
    """Steps and end of a schedule in epochs of the images taken `repeat` times."""
    each = math.ceil(IMAGES * repeat / batch)
    return {"SOLVER.STEPS": (epochs[0] * each, epochs[1] * each), "SOLVER.MAX_ITER": epochs[2] * each}


SIX, TEN = _epochs(32, (20, 23, 24), 3), _epochs(32, (20, 23, 24), 5)
FILES = {
    "fcos/fcos_R_50_FPN_1x": FCOS,
    "fcos/fcos_imprv_R_50_FPN_1x": IMPROVED,
    "fcos/fcos_imprv_dcnv2_R_50_FPN_1x": IMPROVED | DCN | IN_TOWER,
    "fcos/fcos_R_101_FPN_2x": FCOS | R101 | TWICE,
    "fcos/fcos_imprv_R_101_FPN_2x": IMPROVED | R101 | TWICE,
    "fcos/fcos_imprv_dcnv2_R_101_FPN_2x": IMPROVED | R101 | TWICE | DCN | IN_TOWER,
    "fcos/fcos_X_101_32x8d_FPN_2x": FCOS | _resnext(32, 8) | TWICE,
    "fcos/fcos_imprv_X_101_32x8d_FPN_2x": IMPROVED | _resnext(32, 8) | TWICE,
    "fcos/fcos_imprv_dcnv2_X_101_32x8d_FPN_2x": IMPROVED | _resnext(32, 8) | TWICE | DCN,
    "fcos/fcos_X_101_64x4d_FPN_2x": FCOS | _resnext(64, 4) | TWICE,
    "fcos/fcos_imprv_X_101_64x4d_FPN_2x": IMPROVED | _resnext(64, 4) | TWICE,
    "fcos/fcos_imprv_dcnv2_X_101_64x4d_FPN_2x": IMPROVED | _resnext(64, 4) | TWICE | DCN,
    "sipmask/sipmask_R_50_FPN_1x": SIPMASK,
    "sipmask/sipmask_R_101_FPN_ms_3x": SIPMASK
    | R101
    | RANGE
    | {"SOLVER.STEPS": (240000, 260000), "SOLVER.MAX_ITER": 270000},
    "sipmask/sipmask_r50_caffe_fpn_gn_1x": MMDET | _epochs(16, (8, 11, 12)),
    "sipmask/sipmask_r50_caffe_fpn_gn_ms_2x": MMDET | RANGE | _epochs(16, (20, 23, 24)),
    "sipmask/sipmask_r101_caffe_fpn_gn_ms_4x": MMDET | R101 | RANGE | _epochs(16, (40, 46, 48)),
    "sipmask/sipmask_r50_caffe_fpn_ssd_6x": REAL_TIME | NO_NORM | SIX,
    "sipmask/sipmask_r50_caffe_fpn_ssd_gn_10x": REAL_TIME | TEN,
    "sipmask/sipmask_r101_caffe_fpn_ssd_6x": REAL_TIME | NO_NORM | R101 | SIX,
    "sipmask/sipmask_r101_caffe_fpn_ssd_gn_10x": REAL_TIME | R101 | TEN,
    "sipmask/sipmask_plusplus_r101_caffe_fpn_ssd_6x": REAL_TIME | NO_NORM | R101 | PLUSPLUS | SIX,
    "sipmask/sipmask_plusplus_r101_caffe_fpn_ssd_gn_10x": REAL_TIME | R101 | PLUSPLUS | TEN,
}


@pytest.mark.parametrize("name", FILES)
def test_own_files_hold_the_published_values(project_root: Path, name: str) -> None:
    defaults = dict(leaves(get_cfg()))
    expected = {k: v for k, v in FILES[name].items() if v != defaults[k]}
    cfg = load_config(project_root / "configs" / f"{name}.yaml")
    assert {k: v for k, v in leaves(cfg) if v != defaults[k]} == expected


def test_every_published_file_is_in_the_table(project_root: Path) -> None:
    names = {
        f"{path.parent.name}/{path.stem}"
        for folder in ("fcos", "sipmask")
        for path in (project_root / "configs" / folder).iterdir()
        if not path.stem.startswith(("demo", "fcos_mobilenet"))  # our own
    }
    assert names == set(FILES)


def test_mobile_file_differs_from_the_first_in_backbone_and_pixels(project_root: Path) -> None:
    first, mobile = (
        dict(leaves(load_config(project_root / f"configs/fcos/fcos_{backbone}_FPN_1x.yaml")))
        for backbone in ("R_50", "mobilenet_v2")
    )
    assert {key for key in first if first[key] != mobile[key]} == {
        "MODEL.WEIGHT",
        "MODEL.BACKBONE.CONV_BODY",
        "INPUT.TO_BGR255",
        "INPUT.PIXEL_MEAN",
        "INPUT.PIXEL_STD",
    }


def test_published_style_loads(tmp_path: Path) -> None:
    """Quoted tuples, several ways to write a section, keys without effect."""
    path = tmp_path / "published.yaml"
    path.write_text(
        'MODEL:\n  RPN_ONLY: True\n  FCOS_ON: True\n  BACKBONE:\n    CONV_BODY: "R-50-FPN-RETINANET"\n'
        "  RETINANET:\n    USE_C5: False\n  FCOS:\n    FPN_STRIDES: [8, 16, 32, 64, 128]\n"
        "  USE_SYNCBN: True\n"
        "INPUT:\n  MIN_SIZE_RANGE_TRAIN: (640, 800)\nDATALOADER:\n  SIZE_DIVISIBILITY: 32\n"
        "SOLVER:\n  STEPS: (60000, 80000)\n  DCONV_OFFSETS_LR_FACTOR: 0.1\n"
        "TEST:\n  BBOX_AUG:\n    ENABLED: False\n    SCALES: (400, 500)\n"
    )
    cfg = load_config(path)
    assert cfg.INPUT.MIN_SIZE_RANGE_TRAIN == (640, 800) and cfg.SOLVER.DCONV_OFFSETS_LR_FACTOR == 0.1
