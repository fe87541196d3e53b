"""Configurations of the phases: what is derived, what the user's settings win over, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.incremental.distillation.views import check_stored_views, stored_size
from maskrcnn_benchmark.incremental.pipeline.phase_config import (
    derive_phase_cfg,
    stage_settings,
    step_iterations,
)
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.replay.plan import epoch_length
from maskrcnn_benchmark.utils.errors import ConfigError

RUN = Path("runs/x")


def derive(cfg: CfgNode, plan: PhasePlan, phase: int, *overrides: Any) -> CfgNode:
    """The configuration of a phase after further KEY VALUE pairs."""
    return derive_phase_cfg(clone_with(cfg, overrides), plan, phase, RUN)


def test_base_phase(tiny_cfg: CfgNode, mini_plan: PhasePlan) -> None:
    base = derive(tiny_cfg, mini_plan, 0)
    assert base.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 7 and base.LST.PHASE == 0
    assert base.SOLVER.MAX_ITER == 4 and base.SOLVER.BASE_LR == 0.005
    assert base.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 0 and base.MODEL.WEIGHT == ""
    assert not base.MODEL.USE_DISTILL and base.MODEL.ROI_HEADS.SCORE_THRESH == 0.05
    assert str(RUN / "phase_0") == base.OUTPUT_DIR


def test_steps(tiny_cfg: CfgNode, mini_plan: PhasePlan) -> None:
    second = derive(tiny_cfg, mini_plan, 2)
    assert second.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 17 and second.MODEL.NUM_DISTILL_CLASSES == 11
    assert second.MODEL.USE_DISTILL and str(RUN / "phase_2" / "init.pth") == second.MODEL.WEIGHT
    assert second.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 5
    assert second.MODEL.ROI_HEADS.SCORE_THRESH == 0.0 and second.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE == 16
    assert second.SOLVER.MAX_ITER == 3 and second.SOLVER.BASE_LR == 0.002
    assert second.SOLVER.STEPS == (1, 2)
    assert not derive(tiny_cfg, mini_plan, 2, "LST.DISTILL.ENABLED", False).MODEL.USE_DISTILL


def test_schedule_from_the_epoch_length(tiny_cfg: CfgNode, mini_plan: PhasePlan) -> None:
    cfg = tiny_cfg.clone()
    cfg.defrost()
    cfg.LST.SOLVER_STEP = CfgNode(new_allowed=True)
    cfg.freeze()
    step = derive(cfg, mini_plan, 1)
    epoch = epoch_length(mini_plan, 1)
    assert step.SOLVER.MAX_ITER == -(-12 * epoch // 2) == 138
    assert (round(138 * 5 / 12), round(138 * 7 / 12)) == step.SOLVER.STEPS
    without = derive(cfg, mini_plan, 1, "LST.REPLAY.ENABLED", False)
    assert without.SOLVER.MAX_ITER == 12 * 13 // 2
    assert derive(cfg, mini_plan, 1, "SOLVER.ACCUMULATION_STEPS", 2).SOLVER.MAX_ITER == 69


def test_published_iterations() -> None:
    lengths = (41502, 20623, 12467, 7643, 3741, 1597)
    found = [step_iterations(n, 12, 16) for n in lengths]
    assert found == pytest.approx([31100, 15500, 9350, 5730, 2810, 1200], rel=0.01)


def test_phase_overrides_win(tiny_cfg: CfgNode, mini_plan: PhasePlan) -> None:
    own = ["SOLVER.BASE_LR", 0.5, "SOLVER.MAX_ITER", 9, "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 3]
    own += ["MODEL.ROI_HEADS.SCORE_THRESH", 0.3]
    overrides = ("LST.PHASE_OVERRIDES", {"2": own})
    second, first = (derive(tiny_cfg, mini_plan, p, *overrides) for p in (2, 1))
    assert second.SOLVER.BASE_LR == 0.5 and second.SOLVER.MAX_ITER == 9 and second.SOLVER.STEPS == (4, 5)
    assert second.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 3 and second.MODEL.ROI_HEADS.SCORE_THRESH == 0.3
    assert first.SOLVER.BASE_LR == 0.002 and first.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 5


def test_file_names_with_the_phase_number(tiny_cfg: CfgNode, mini_plan: PhasePlan) -> None:
    step = derive(tiny_cfg, mini_plan, 2, "LST.DISTILL.FILE", "logits_step{phase}.json")
    assert step.LST.DISTILL.FILE == "logits_step2.json"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["INPUT.MIN_SIZE_TRAIN", (64, 96)], r"INPUT.MIN_SIZE_TRAIN is \(64, 96\)"),
        (["INPUT.VERTICAL_FLIP_PROB_TRAIN", 0.5], "no upside-down views"),
        (["LST.DISTILL.FLIPS", (0,)], r"needs \(0, 1\)"),
    ],
)
def test_impossible_combinations(
    tiny_cfg: CfgNode, mini_plan: PhasePlan, overrides: list[Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        derive(tiny_cfg, mini_plan, 1, *overrides)


def test_sizes_of_stored_outputs(tiny_cfg: CfgNode) -> None:
    """One short side, or a fixed size whatever the short sides; never a range."""

    def stored(*overrides: Any) -> tuple[int, int]:
        cfg = clone_with(tiny_cfg, overrides)
        check_stored_views(cfg, (0, 1), "LST.DISTILL.FLIPS", "LST.DISTILL.ENABLED")
        return stored_size(cfg)

    sides = ("INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.MAX_SIZE_TRAIN", 160)
    assert stored(*sides) == (96, 160)
    assert stored(*sides, "INPUT.MIN_SIZE_RANGE_TRAIN", (80, 80)) == (80, 160)
    assert stored("INPUT.MIN_SIZE_TRAIN", (64, 96), "INPUT.FIXED_SIZE_TRAIN", (120, 90)) == (120, 90)
    with pytest.raises(ConfigError, match=r"INPUT\.MIN_SIZE_RANGE_TRAIN is \(80, 96\)"):
        stored(*sides, "INPUT.MIN_SIZE_RANGE_TRAIN", (80, 96))
    with pytest.raises(ConfigError, match=r"INPUT\.MIN_SIZE_TRAIN is \(64, 96\)"):
        stored("INPUT.MIN_SIZE_TRAIN", (64, 96))


def test_stage_settings_ignore_what_does_not_matter(tiny_cfg: CfgNode, mini_plan: PhasePlan) -> None:
    one = derive(tiny_cfg, mini_plan, 1)
    other = derive(
        tiny_cfg, mini_plan, 1, "SOLVER.LOG_PERIOD", 7, "DATALOADER.NUM_WORKERS", 3, "OUTPUT_DIR", "y"
    )
    assert stage_settings(one, "train") == stage_settings(other, "train")
    slower = derive(tiny_cfg, mini_plan, 1, "SOLVER.WEIGHT_DECAY", 0.5)
    assert stage_settings(one, "train") != stage_settings(slower, "train")
    assert stage_settings(one, "dump") == stage_settings(slower, "dump")
    lower = derive(tiny_cfg, mini_plan, 1, "TEST.IMS_PER_BATCH", 3)
    assert stage_settings(one, "train") == stage_settings(lower, "train")
    assert stage_settings(one, "report") != stage_settings(lower, "report")


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (["LST.GROW.BOXES_PER_CLASS", 3], []),
        (["LST.GROW.INIT", "feature_mean"], ["grow"]),
        (["LST.REPORT_SIZES", (6, 10)], ["report"]),
        (["LST.FREEZE_STEP", 0], ["train", "report"]),
        (["MODEL.ROI_MASK_HEAD.USE_MLPMASK", False], ["train", "report"]),
        (["LST.REPLAY.ENABLED", False], ["replay"]),
        (["DATALOADER.SAMPLER", "repeat_factor"], ["train"]),
        (["LST.BASE_RUN", "other"], []),
    ],
)
def test_a_switch_outdates_the_stages_that_read_it(
    tiny_cfg: CfgNode, mini_plan: PhasePlan, change: list[Any], stages: list[str]
) -> None:
    before, after = derive(tiny_cfg, mini_plan, 1), derive(tiny_cfg, mini_plan, 1, *change)
    names = ("dump", "grow", "replay", "train", "report")
    assert [n for n in names if stage_settings(before, n) != stage_settings(after, n)] == stages


def test_class_weights_from_data_depend_on_the_images(tiny_cfg: CfgNode, mini_plan: PhasePlan) -> None:
    change = ["INPUT.MIN_SIZE_TRAIN", (48,)]
    for init, same in (("normal", True), ("feature_mean", False)):
        before = derive(tiny_cfg, mini_plan, 1, "LST.GROW.INIT", init)
        after = derive(tiny_cfg, mini_plan, 1, "LST.GROW.INIT", init, *change)
        assert (stage_settings(before, "grow") == stage_settings(after, "grow")) == same
