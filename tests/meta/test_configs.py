"""Every file in configs/ is short, loads and builds its model; those of long-tail runs in every phase."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import resolve_dataset, resolve_weight
from maskrcnn_benchmark.config.compat import split_conv_body
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.config.models import has_roi_heads, model_family, model_neck
from maskrcnn_benchmark.incremental.comparison.ablation import read_ablation
from maskrcnn_benchmark.incremental.pipeline.phase_config import derive_phase_cfg
from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan, phase_sizes
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import read_json

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ALL_FILES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml"))
# Lists of variants for tools/lst_ablation.py are no configurations.
FILES = [name for name in ALL_FILES if not name.startswith("ablations/")]
# Data sets that are read from the files of their publishers, not from one annotation file.
OWN_FORMATS = ("voc_2007_", "cityscapes_mask_", "cityscapes_poly_")
# Classes in the data of every long-tail file, and its phases (base included).
LST_FILES = {
    "lst/coco_sample.yaml": (80, 5),
    "lst/demo.yaml": (24, 3),
    "lst/lvis_v0.5_270_6x160.yaml": (1230, 7),
    "lst/lvis_v0.5_270_3x320.yaml": (1230, 4),
    "lst/lvis_v0.5_270_3x320_R_101.yaml": (1230, 4),
    "lst/lvis_v0.5_270_12x80.yaml": (1230, 13),
    "lst/lvis_v0.5_joint.yaml": (1230, 1),
    "lst/lvis_v0.5_joint_class_aware.yaml": (1230, 1),
    "lst/lvis_v0.5_joint_repeat_factor.yaml": (1230, 1),
}
# Lists of the reference program's parameters, and the files whose models have exactly these.
PARAMETERS = CONFIGS.parent / "tests" / "parity" / "golden" / "core" / "params"
_X101 = "e2e_mask_rcnn_X_101_32x8d_FPN"
SAME_PARAMETERS = {
    "e2e_faster_rcnn_R_50_C4_1x": (
        "e2e_faster_rcnn_R_50_C4_1x",
        "caffe2/e2e_faster_rcnn_R_50_C4_1x_caffe2",
        "quick_schedules/e2e_faster_rcnn_R_50_C4_quick",
    ),
    "e2e_mask_rcnn_R_50_C4_1x": (
        "e2e_mask_rcnn_R_50_C4_1x",
        "caffe2/e2e_mask_rcnn_R_50_C4_1x_caffe2",
        "quick_schedules/e2e_mask_rcnn_R_50_C4_quick",
    ),
    "e2e_mask_rcnn_R_50_FPN_1x": (
        "e2e_mask_rcnn_R_50_FPN_1x",
        "e2e_mask_rcnn_R_50_FPN_1x_periodically_testing",
        "caffe2/e2e_mask_rcnn_R_50_FPN_1x_caffe2",
        "quick_schedules/e2e_mask_rcnn_R_50_FPN_quick",
        "test_time_aug/e2e_mask_rcnn_R_50_FPN_1x",
    ),
    "e2e_mask_rcnn_X_101_32x8d_FPN_1x": (
        f"{_X101}_1x",
        f"caffe2/{_X101}_1x_caffe2",
        f"quick_schedules/{_X101}_quick",
    ),
    "e2e_keypoint_rcnn_R_50_FPN_1x": (
        "e2e_keypoint_rcnn_R_50_FPN_1x",
        "caffe2/e2e_keypoint_rcnn_R_50_FPN_1x_caffe2",
        "quick_schedules/e2e_keypoint_rcnn_R_50_FPN_quick",
    ),
    "e2e_mask_rcnn_R_50_FPN_1x_gn": (
        "gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn",
        "gn_baselines/scratch_e2e_mask_rcnn_R_50_FPN_3x_gn",
    ),
    "rpn_R_50_FPN_1x": ("rpn_R_50_FPN_1x", "quick_schedules/rpn_R_50_FPN_quick"),
}


@cache
def _build_from(model: str) -> nn.Module:
    """The model of a MODEL section as text, without memory for its weights."""
    cfg = get_cfg()
    cfg.MODEL = CfgNode.load_cfg(model)
    with torch.device("meta"):
        return build_detection_model(cfg)


def _build(cfg: CfgNode) -> nn.Module:
    """The model without memory for its weights; files that differ in weights or data alone share it."""
    node = cfg.MODEL.clone()
    node.defrost()
    node.WEIGHT = ""
    return _build_from(node.dump())


def _plan(cfg: CfgNode, num_classes: int) -> PhasePlan:
    """A plan for as many classes as the real data have; 30 objects in 20 images each."""
    classes = tuple(ClassInfo(i, f"class {i}", "c", 30, 20, 30, 20) for i in range(1, num_classes + 1))
    plan = PhasePlan(classes, phase_sizes(cfg.LST.BASE_SIZE, cfg.LST.STEP_SIZE, num_classes))
    return plan.with_report_sizes(cfg.LST.REPORT_SIZES)


def test_the_files_are_found() -> None:
    assert len(FILES) >= 15


@pytest.mark.parametrize("name", ALL_FILES)
def test_file_is_short(name: str) -> None:
    assert len((CONFIGS / name).read_text(encoding="utf-8").splitlines()) <= 30


@pytest.mark.parametrize("name", FILES)
def test_builds_its_model(name: str) -> None:
    cfg = load_config(CONFIGS / name)
    if cfg.MODEL.BACKBONE.CONV_BODY == "FBNet":
        with pytest.raises(ConfigError, match=r"MODEL\.BACKBONE\.CONV_BODY FBNet: .* not provided"):
            _build(cfg)
        return
    model = _build(cfg)
    assert all(p.is_meta for p in model.parameters())
    assert sum(p.requires_grad for p in model.parameters()) > 30
    state = model.state_dict()
    assert any("roi_heads.mask" in n for n in state) == (cfg.MODEL.MASK_ON and has_roi_heads(cfg))
    assert any("roi_heads.keypoint" in n for n in state) == cfg.MODEL.KEYPOINT_ON
    assert any("roi_heads.box" in n for n in state) == has_roi_heads(cfg)
    assert any("rpn.head.cls_tower" in n for n in state) == (model_family(cfg).one_stage)
    assert any("rpn.head.sip_mask_lat" in n for n in state) == (model_family(cfg).name == "sipmask")


ONE_STAGE_FILES = (
    "tiny/fcos",
    "tiny/sipmask",
    "tiny/retinanet_R_18_FPN_gn",
    "retinanet/retinanet_R-50-FPN_1x",
)


@pytest.mark.parametrize("name", ONE_STAGE_FILES)
def test_head_and_neck_build_what_published_keys_build(name: str) -> None:
    cfg = load_config(CONFIGS / f"{name}.yaml")
    family, neck = model_family(cfg), model_neck(cfg)
    backbone, _ = split_conv_body(cfg.MODEL.BACKBONE.CONV_BODY)
    pairs = [f"MODEL.{family.switch}", False, "MODEL.HEAD", family.name, "MODEL.NECK", neck]
    same = clone_with(cfg, [*pairs, "MODEL.BACKBONE.CONV_BODY", backbone])
    shapes = [[(key, value.shape) for key, value in _build(c).state_dict().items()] for c in (cfg, same)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("listed", SAME_PARAMETERS)
def test_variants_have_the_published_parameters(listed: str) -> None:
    path = PARAMETERS / f"{listed}.json"
    published = [(name, list(shape)) for name, shape, _ in read_json(path)["state_dict"]]
    for name in SAME_PARAMETERS[listed]:
        state = _build(load_config(CONFIGS / f"{name}.yaml")).state_dict()
        assert [(key, list(value.shape)) for key, value in state.items()] == published, name


@pytest.mark.parametrize("name", FILES)
def test_names_in_the_file_are_known(name: str) -> None:
    cfg = load_config(CONFIGS / name)
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        spec = resolve_dataset(cfg, dataset)
        assert spec.ann_file.endswith(".json") != dataset.startswith(OWN_FORMATS)
    assert not resolve_weight(cfg, cfg.MODEL.WEIGHT).startswith("catalog://")


def test_every_long_tail_file_is_in_the_table() -> None:
    enabled = {name for name in FILES if load_config(CONFIGS / name).LST.ENABLED}
    assert enabled == set(LST_FILES)


@pytest.mark.parametrize("name", LST_FILES)
def test_every_phase_is_derived(name: str, tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / name)
    num_classes, num_phases = LST_FILES[name]
    plan = _plan(cfg, num_classes)
    assert plan.num_phases == num_phases
    for phase in range(num_phases):
        derived = derive_phase_cfg(cfg, plan, phase, tmp_path)
        assert 1 + plan.num_seen(phase) == derived.MODEL.ROI_BOX_HEAD.NUM_CLASSES
        assert not derived.SOLVER.STEPS or derived.SOLVER.STEPS[-1] < derived.SOLVER.MAX_ITER
        assert (phase > 0) == derived.MODEL.USE_DISTILL


@pytest.mark.parametrize("name", LST_FILES)
def test_first_and_last_phase_build(name: str, tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / name)
    plan = _plan(cfg, LST_FILES[name][0])
    frozen = []
    for phase in (0, plan.num_phases - 1):
        model = _build(derive_phase_cfg(cfg, plan, phase, tmp_path))
        state = model.state_dict()
        classes = 1 + plan.num_seen(phase)
        assert state["roi_heads.box.predictor.cls_score.weight"].shape[0] == classes
        assert state["roi_heads.box.predictor.bbox_pred.weight"].shape[0] == 4 * classes
        assert "roi_heads.box.predictor.scale_cls" in state
        frozen.append(sum(not p.requires_grad for p in model.parameters()))
    # The whole backbone is frozen in the steps.
    assert frozen[1] > frozen[0] or plan.num_phases == 1


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("6x160", [271, 431, 591, 751, 911, 1071, 1231]),
        ("3x320", [271, 591, 911, 1231]),
        ("3x320_R_101", [271, 591, 911, 1231]),
        ("12x80", list(range(271, 1232, 80))),
    ],
)
def test_outputs_of_the_published_splits(name: str, outputs: list[int], tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / f"lst/lvis_v0.5_270_{name}.yaml")
    plan = _plan(cfg, 1230)
    phases = [derive_phase_cfg(cfg, plan, phase, tmp_path) for phase in range(plan.num_phases)]
    assert [phase.MODEL.ROI_BOX_HEAD.NUM_CLASSES for phase in phases] == outputs
    assert [phase.MODEL.NUM_DISTILL_CLASSES for phase in phases[1:]] == [n - 1 for n in outputs[:-1]]
    assert ("R-101-FPN" if "101" in name else "R-50-FPN") == phases[0].MODEL.BACKBONE.CONV_BODY


def test_joint_files_report_like_the_paper_run(tmp_path: Path) -> None:
    paper = load_config(CONFIGS / "lst/lvis_v0.5_270_6x160.yaml")
    last = _plan(paper, 1230).groups(6)
    samplers = []
    for name in ("joint", "joint_class_aware", "joint_repeat_factor"):
        cfg = load_config(CONFIGS / f"lst/lvis_v0.5_{name}.yaml")
        plan = _plan(cfg, 1230)
        derived = derive_phase_cfg(cfg, plan, 0, tmp_path)
        assert derived.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 1231 and not derived.MODEL.QRY_BALANCE
        assert plan.groups(0) == last
        samplers.append(derived.DATALOADER.SAMPLER)
    assert samplers == ["shuffle", "class_aware", "repeat_factor"]


def test_ablations_are_known_settings() -> None:
    files = [name for name in ALL_FILES if name not in FILES]
    assert "ablations/demo.yaml" in files
    for name in files:
        ablation = read_ablation(CONFIGS / name)
        for pairs in ablation.variants.values():
            cfg = clone_with(load_config(ablation.config), [*ablation.opts, *pairs])
            plan = _plan(cfg, 24)
            for phase in range(plan.num_phases):
                derive_phase_cfg(cfg, plan, phase, Path("run"))


def test_paper_file_trains_what_the_paper_trains(tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / "lst/lvis_v0.5_270_6x160.yaml")
    plan = _plan(cfg, 1230)
    base, last = (derive_phase_cfg(cfg, plan, phase, tmp_path) for phase in (0, 6))
    assert sum(p.requires_grad for p in _build(base).parameters()) == 88
    assert sum(p.requires_grad for p in _build(last).parameters()) == 46
    for phase in (base, last):
        assert phase.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN == 1000
        assert phase.MODEL.RPN.PRE_NMS_TOP_N_TRAIN == 2000 and phase.MODEL.RPN.PRE_NMS_TOP_N_TEST == 1000
        assert phase.MODEL.RPN.POST_NMS_TOP_N_TEST == 1000 and phase.MODEL.RPN.FPN_POST_NMS_PER_BATCH
        assert phase.MODEL.ROI_HEADS.DETECTIONS_PER_IMG == 300
    assert (base.SOLVER.BASE_LR, base.SOLVER.IMS_PER_BATCH, base.SOLVER.WARMUP_ITERS) == (0.01, 8, 500)
    assert (base.SOLVER.STEPS, base.SOLVER.MAX_ITER) == ((30000, 40000), 50000)
    assert (last.SOLVER.BASE_LR, last.SOLVER.IMS_PER_BATCH, last.SOLVER.WARMUP_ITERS) == (0.005, 16, 0)
    assert base.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE == 512 and base.MODEL.ROI_HEADS.SCORE_THRESH == 0.05
    assert last.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE == 200 and last.MODEL.ROI_HEADS.SCORE_THRESH == 0.0
    assert last.MODEL.NUM_DISTILL_CLASSES == 1070
