"""config.defaults: the published tree and what was added to it."""

from __future__ import annotations

import ast
import inspect

import pytest

from maskrcnn_benchmark.config import defaults
from maskrcnn_benchmark.config.check import check_config
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import get_value, leaves

# A sample of specification "core" 1.1 and "lst" 9 and 12.1, every section at least once.
PUBLISHED = {
    "MODEL.RPN_ONLY": False,
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.WEIGHT": "",
    "MODEL.BACKBONE.CONV_BODY": "R-50-C4",
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": 2,
    "MODEL.GROUP_NORM.DIM_PER_GP": -1,
    "MODEL.GROUP_NORM.NUM_GROUPS": 32,
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 1024,
    "MODEL.RESNETS.STAGE_WITH_DCN": (False, False, False, False),
    "MODEL.RPN.ANCHOR_SIZES": (32, 64, 128, 256, 512),
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 12000,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 2000,
    "MODEL.RPN.FPN_POST_NMS_PER_BATCH": True,
    "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": (1.0 / 16,),
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 81,
    "MODEL.ROI_MASK_HEAD.CONV_LAYERS": (256, 256, 256, 256),
    "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES": 17,
    "MODEL.RETINANET.BBOX_REG_BETA": 0.11,
    "MODEL.FBNET.DET_HEAD_BLOCKS": [],
    "INPUT.MIN_SIZE_TRAIN": (800,),
    "INPUT.PIXEL_MEAN": [102.9801, 115.9465, 122.7717],
    "DATASETS.TRAIN": (),
    "DATALOADER.NUM_WORKERS": 4,
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.BIAS_LR_FACTOR": 2,
    "SOLVER.WARMUP_FACTOR": 1.0 / 3,
    "SOLVER.TEST_PERIOD": 0,
    "TEST.BBOX_AUG.MAX_SIZE": 4000,
    "OUTPUT_DIR": ".",
    "DTYPE": "float32",
    "TENSORBOARD_EXPERIMENT": "logs/maskrcnn-benchmark",
    "MODEL.NUM_DISTILL_CLASSES": 270,
    "MODEL.FEW_SHOT.ScaleCls": 10,
    "MODEL.ROI_MASK_HEAD.USE_BBOX2MASK": False,
    "SOLVER.USE_CAS": False,
    "LST.BASE_SIZE": 270,
    "LST.STEP_SIZE": 160,
    "LST.REPLAY.EPOCHS": 12,
    "LST.GROW.REG_STD": 0.001,
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_published_default(key: str) -> None:
    assert get_value(get_cfg(), key) == PUBLISHED[key]


def test_differences_from_the_published_tree() -> None:
    cfg = get_cfg()
    assert cfg.MODEL.DEVICE == "auto"
    assert cfg.PATHS_CATALOG == ""
    assert cfg.MODEL.USE_DISTILL is False


def test_trees_are_independent() -> None:
    first, second = get_cfg(), get_cfg()
    first.MODEL.RPN.MIN_SIZE = 7
    first.INPUT.PIXEL_MEAN.append(0.0)
    first.DATASETS.REGISTER["x"] = 1
    assert second == get_cfg()


def test_defaults_pass_the_checks() -> None:
    check_config(get_cfg())


def test_every_key_has_a_comment() -> None:
    source = inspect.getsource(defaults)
    lines = source.splitlines()
    bare = []
    for node in ast.walk(ast.parse(source)):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if (
            not isinstance(target, ast.Attribute)
            or isinstance(node.value, ast.Call)
            and not node.value.keywords
        ):
            continue
        assert node.end_lineno is not None
        text = lines[node.lineno - 2 : node.end_lineno]
        if not any("#" in line for line in (text if text[0].strip().startswith("#") else text[1:])):
            bare.append(ast.unparse(node))
    assert not bare


def test_leaves_cover_the_tree() -> None:
    keys = [key for key, _ in leaves(get_cfg())]
    assert len(keys) == len(set(keys)) > 200
    assert "LST.SOLVER_BASE" in keys  # an empty section of the user's own
