"""Configuration of each phase, derived from the one the user wrote; settings that each stage depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.keys import get_value, leaves
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.incremental.distillation.views import check_stored_views
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import GROWN_WEIGHTS, phase_folder
from maskrcnn_benchmark.incremental.replay.plan import epoch_length
from maskrcnn_benchmark.utils.errors import ConfigError

# Released files of a step; "{phase}" in their names stands for its index.
_FILE_KEYS = ("LST.REPLAY.FILE_IMAGES", "LST.REPLAY.FILE_CLASSES", "LST.DISTILL.FILE")

# Keys that change neither weights nor results of a finished stage, or whose content a stage hashes as a file.
_NEUTRAL = (
    "OUTPUT_DIR", "PATHS_CATALOG", "DATASETS", "DATALOADER.NUM_WORKERS", "AMP_VERBOSE",
    "TENSORBOARD_EXPERIMENT", "MODEL.DEVICE", "SOLVER.LOG_PERIOD", "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.KEEP_CHECKPOINTS", "SOLVER.TEST_PERIOD", "INPUT.MAX_PIXELS",
    "LST.RUN_DIR", "LST.PHASES", "LST.ANN_TRAIN", "LST.ANN_VAL", "LST.IMG_TRAIN", "LST.IMG_VAL",
)  # fmt: skip
_PREPARE = ("LST.BASE_SIZE", "LST.STEP_SIZE", "LST.SORT_BY")
_TEST_ONLY = (
    "TEST", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "INPUT.FIXED_SIZE_TEST",
    "MODEL.ROI_HEADS.SCORE_THRESH", "MODEL.ROI_HEADS.NMS", "MODEL.ROI_HEADS.DETECTIONS_PER_IMG",
    "MODEL.RPN.PRE_NMS_TOP_N_TEST", "MODEL.RPN.POST_NMS_TOP_N_TEST", "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST",
    "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD",
)  # fmt: skip
# Keys that a stage depends on: (prefixes, excluded prefixes below these).
_STAGE_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prepare": (_PREPARE, ()),
    "dump": (("LST.DISTILL", "INPUT", "DTYPE"), ("LST.DISTILL.WEIGHT", "LST.DISTILL.FILE", *_TEST_ONLY)),
    "grow": (("LST.GROW.INIT", "LST.GROW.CLS_STD", "LST.GROW.REG_STD", "LST.SEED"), ()),
    "grow from data": (("LST.GROW", "LST.SEED", "INPUT"), _TEST_ONLY),
    "replay": (("LST.REPLAY.ENABLED", "LST.REPLAY.MODE", "LST.REPLAY.MIN_PER_CLASS"), ()),
    "train": (
        ("MODEL", "INPUT", "SOLVER", "DATALOADER", "DTYPE", "SEED", "LST.SEED", "LST.DISTILL.WEIGHT",
         "LST.REPLAY.FALLBACK_POSITIVES"),
        _TEST_ONLY,
    ),
    "report": (("MODEL", "INPUT", "TEST", "DTYPE", "LST.VAL_IMAGES", "LST.REPORT_SIZES"), ()),
}  # fmt: skip


def step_iterations(epoch: int, epochs: float, images_per_update: int) -> int:
    """Number of iterations of a step: `epochs` balanced epochs of `epoch` samples."""
    return max(1, math.ceil(epochs * epoch / images_per_update))


def derive_phase_cfg(cfg: CfgNode, plan: PhasePlan, phase: int, run_dir: Path) -> CfgNode:
    """Derive the frozen configuration of `phase`: classes, frozen layers, start weights, folder, schedule.

    Precedence: LST.PHASE_OVERRIDES of the phase, LST.SOLVER_BASE or SOLVER_STEP, then derived values.

    Raises:
        ConfigError: for an unknown phase or key, or for a combination that cannot work.
    """
    plan.check_phase(phase)
    overrides = _user_overrides(cfg, phase)
    with_user = clone_with(cfg, _flat(overrides))
    derived: dict[str, Any] = {
        "OUTPUT_DIR": str(phase_folder(run_dir, phase)),
        "LST.RUN_DIR": str(run_dir),
        "LST.PHASE": phase,
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 1 + plan.num_seen(phase),
        "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": cfg.LST.FREEZE_STEP if phase else cfg.LST.FREEZE_BASE,
        "MODEL.USE_DISTILL": bool(phase and with_user.LST.DISTILL.ENABLED),
        "MODEL.QRY_BALANCE": phase > 0,
    }
    if phase > 0:
        derived |= {
            "MODEL.WEIGHT": str(phase_folder(run_dir, phase) / GROWN_WEIGHTS),
            "MODEL.WEIGHT_ALLOW_MISMATCH": False,
            "MODEL.NUM_DISTILL_CLASSES": plan.num_old(phase),
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": cfg.LST.ROI_BATCH_STEP,
            "MODEL.ROI_HEADS.SCORE_THRESH": cfg.LST.SCORE_THRESH_STEP,
            **_step_schedule(with_user, plan, phase, overrides),
        }
    derived |= {
        key: value.replace("{phase}", str(phase))
        for key in _FILE_KEYS
        if (value := get_value(with_user, key))
    }
    result = clone_with(
        with_user, _flat({k: v for k, v in derived.items() if k not in overrides or k in _FILE_KEYS})
    )
    _check_modes(result, phase)
    return result


def stage_settings(cfg: CfgNode, stage: str) -> dict[str, Any]:
    """KEY -> value of the settings that `stage` depends on: a change makes its result outdated."""
    from_data = stage == "grow" and cfg.LST.GROW.INIT != "normal"
    included, excluded = _STAGE_KEYS["grow from data" if from_data else stage]
    values = {k: v for k, v in leaves(cfg) if _under(k, included) and not _under(k, (*excluded, *_NEUTRAL))}
    if cfg.LST.PHASE > 0:
        # the grown checkpoint is compared by content
        values.pop("MODEL.WEIGHT", None)
    return values


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `key` is one of `prefixes` or lies below one."""
    return any(key == p or key.startswith(f"{p}.") for p in prefixes)


def _flat(overrides: Mapping[str, Any]) -> list[Any]:
    """Flatten a mapping to KEY, VALUE, KEY, VALUE ..."""
    return [item for pair in overrides.items() for item in pair]


def _user_overrides(cfg: CfgNode, phase: int) -> dict[str, Any]:
    """KEY -> value that the user set for this phase: SOLVER_BASE or SOLVER_STEP, then PHASE_OVERRIDES."""
    solver = cfg.LST.SOLVER_STEP if phase else cfg.LST.SOLVER_BASE
    overrides = {f"SOLVER.{key}": value for key, value in leaves(solver)}
    pairs = {str(k): v for k, v in cfg.LST.PHASE_OVERRIDES.items()}.get(str(phase), [])
    if len(pairs) % 2:
        raise ConfigError(
            f"LST.PHASE_OVERRIDES of phase {phase}: expected KEY, VALUE pairs, got {list(pairs)}"
        )
    return overrides | dict(zip(pairs[0::2], pairs[1::2], strict=True))


def _step_schedule(cfg: CfgNode, plan: PhasePlan, phase: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """SOLVER.MAX_ITER and STEPS of a step, from its epoch length where the user gave none."""
    schedule: dict[str, Any] = {}
    total = cfg.SOLVER.MAX_ITER
    if "SOLVER.MAX_ITER" not in overrides:
        epoch = epoch_length(plan, phase, cfg.LST.REPLAY.MIN_PER_CLASS, cfg.LST.REPLAY.ENABLED)
        per_update = cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.ACCUMULATION_STEPS
        total = schedule["SOLVER.MAX_ITER"] = step_iterations(epoch, cfg.LST.REPLAY.EPOCHS, per_update)
    if "SOLVER.STEPS" not in overrides:
        drops = {round(total * fraction) for fraction in cfg.LST.STEP_MILESTONES}
        schedule["SOLVER.STEPS"] = tuple(sorted(drops - {0}))
    return schedule


def _check_modes(cfg: CfgNode, phase: int) -> None:
    """Raise ConfigError for choices that cannot work together."""
    if phase and cfg.LST.DISTILL.ENABLED and cfg.LST.DISTILL.MODE == "file":
        check_stored_views(cfg, cfg.LST.DISTILL.FLIPS, "LST.DISTILL.FLIPS", "LST.DISTILL.ENABLED")
