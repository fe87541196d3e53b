"""The configuration of each phase, derived from the one the user wrote (lst spec sections 7 and 12.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.keys import get_value, leaves
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.replay.plan import epoch_length
from maskrcnn_benchmark.utils.errors import ConfigError

FINAL_WEIGHTS, GROWN_WEIGHTS = "model_final.pth", "init.pth"
# Published files of a step; "{phase}" in their names stands for its number.
_FILE_KEYS = ("LST.REPLAY.FILE_IMAGES", "LST.REPLAY.FILE_CLASSES", "LST.DISTILL.FILE")

# Keys that change neither weights nor numbers of a finished stage, or whose content a stage hashes as a file.
_NEUTRAL = (
    "OUTPUT_DIR", "PATHS_CATALOG", "DATASETS", "DATALOADER.NUM_WORKERS", "AMP_VERBOSE",
    "TENSORBOARD_EXPERIMENT", "MODEL.DEVICE", "SOLVER.LOG_PERIOD", "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.KEEP_CHECKPOINTS", "SOLVER.TEST_PERIOD",
    "LST.RUN_DIR", "LST.PHASES", "LST.ANN_TRAIN", "LST.ANN_VAL", "LST.IMG_TRAIN", "LST.IMG_VAL",
)  # fmt: skip
_PREPARE = ("LST.BASE_SIZE", "LST.STEP_SIZE", "LST.SORT_BY")
_TEST_ONLY = (
    "TEST", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "INPUT.FIXED_SIZE_TEST",
    "MODEL.ROI_HEADS.SCORE_THRESH", "MODEL.ROI_HEADS.NMS", "MODEL.ROI_HEADS.DETECTIONS_PER_IMG",
    "MODEL.RPN.PRE_NMS_TOP_N_TEST", "MODEL.RPN.POST_NMS_TOP_N_TEST", "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST",
    "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD",
)  # fmt: skip
# What a stage reads: (prefixes that count, prefixes of these that do not).
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


def run_folder(cfg: CfgNode) -> Path:
    """Folder of the whole run: LST.RUN_DIR, or OUTPUT_DIR where it is empty."""
    return Path(cfg.LST.RUN_DIR or cfg.OUTPUT_DIR)


def phase_folder(run_dir: Path, phase: int) -> Path:
    """Folder of one phase inside the run folder."""
    return run_dir / f"phase_{phase}"


def step_iterations(epoch: int, epochs: float, images_per_update: int) -> int:
    """Iterations of a step: `epochs` balanced epochs of `epoch` samples (rule of lst spec section 7)."""
    return max(1, math.ceil(epochs * epoch / images_per_update))


def derive_phase_cfg(cfg: CfgNode, plan: PhasePlan, phase: int, run_dir: Path) -> CfgNode:
    """The frozen configuration of `phase`: class counts, frozen layers, start weights, folder, schedule.

    Precedence: LST.PHASE_OVERRIDES of the phase, LST.SOLVER_BASE or SOLVER_STEP, then derived values.

    Raises:
        ConfigError: for an unknown phase or key, or for a combination that cannot work.
    """
    plan.check_phase(phase)
    chosen = _user_overrides(cfg, phase)
    with_user = clone_with(cfg, _flat(chosen))
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
            **_step_schedule(with_user, plan, phase, chosen),
        }
    derived |= {
        key: value.replace("{phase}", str(phase))
        for key in _FILE_KEYS
        if (value := get_value(with_user, key))
    }
    result = clone_with(
        with_user, _flat({k: v for k, v in derived.items() if k not in chosen or k in _FILE_KEYS})
    )
    _check_modes(result, phase)
    return result


def stage_settings(cfg: CfgNode, stage: str) -> dict[str, Any]:
    """KEY -> value of the settings whose change makes `stage` outdated."""
    from_data = stage == "grow" and cfg.LST.GROW.INIT != "normal"
    counted, left_out = _STAGE_KEYS["grow from data" if from_data else stage]
    values = {k: v for k, v in leaves(cfg) if _under(k, counted) and not _under(k, (*left_out, *_NEUTRAL))}
    if cfg.LST.PHASE > 0:
        # the grown checkpoint is compared by content
        values.pop("MODEL.WEIGHT", None)
    return values


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `key` is one of `prefixes` or lies below one."""
    return any(key == p or key.startswith(f"{p}.") for p in prefixes)


def _flat(overrides: Mapping[str, Any]) -> list[Any]:
    """KEY, VALUE, KEY, VALUE ... of a mapping."""
    return [item for pair in overrides.items() for item in pair]


def _user_overrides(cfg: CfgNode, phase: int) -> dict[str, Any]:
    """What the user set for this phase: SOLVER_BASE or SOLVER_STEP, then PHASE_OVERRIDES."""
    solver = cfg.LST.SOLVER_STEP if phase else cfg.LST.SOLVER_BASE
    chosen = {f"SOLVER.{key}": value for key, value in leaves(solver)}
    own = {str(k): v for k, v in cfg.LST.PHASE_OVERRIDES.items()}.get(str(phase), [])
    if len(own) % 2:
        raise ConfigError(f"LST.PHASE_OVERRIDES of phase {phase}: expected KEY, VALUE pairs, got {list(own)}")
    return chosen | dict(zip(own[0::2], own[1::2], strict=True))


def _step_schedule(cfg: CfgNode, plan: PhasePlan, phase: int, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """MAX_ITER and STEPS of a step, from its epoch length where the user gave none."""
    schedule: dict[str, Any] = {}
    total = cfg.SOLVER.MAX_ITER
    if "SOLVER.MAX_ITER" not in chosen:
        epoch = epoch_length(plan, phase, cfg.LST.REPLAY.MIN_PER_CLASS, cfg.LST.REPLAY.ENABLED)
        per_update = cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.ACCUMULATION_STEPS
        total = schedule["SOLVER.MAX_ITER"] = step_iterations(epoch, cfg.LST.REPLAY.EPOCHS, per_update)
    if "SOLVER.STEPS" not in chosen:
        drops = {round(total * share) for share in cfg.LST.STEP_MILESTONES}
        schedule["SOLVER.STEPS"] = tuple(sorted(drops - {0}))
    return schedule


def _check_modes(cfg: CfgNode, phase: int) -> None:
    """Raise ConfigError for choices that cannot work, before any work is done."""
    if phase and cfg.LST.DISTILL.ENABLED and cfg.LST.DISTILL.MODE == "file":
        check_stored_views(cfg, cfg.LST.DISTILL.FLIPS, "LST.DISTILL.FLIPS", "LST.DISTILL.ENABLED")


def stored_size(cfg: CfgNode) -> tuple[int, int]:
    """Size of the images of a store, see `DistillHeader.input_size`."""
    rule = SizeRule.from_cfg(cfg, train=True)
    return rule.fixed or (rule.short_sides[0], rule.max_size)


def check_stored_views(cfg: CfgNode, flips: Sequence[int], where: str, switch: str) -> None:
    """Raise ConfigError when training shows images in a view that no stored outputs exist for.

    Args:
        flips: views that are stored, 0 plain and 1 mirrored. where: what they are written in.
        switch: key that turns distillation off.
    """
    rule = SizeRule.from_cfg(cfg, train=True)
    if rule.fixed is None and len(rule.short_sides) != 1:
        ranged = max(cfg.INPUT.MIN_SIZE_RANGE_TRAIN) > 0
        key = "MIN_SIZE_RANGE_TRAIN" if ranged else "MIN_SIZE_TRAIN"
        raise ConfigError(
            f"the teacher's outputs are stored for one image size, but INPUT.{key} is "
            f"{tuple(cfg.INPUT[key])}; give one size, set {switch} False, or (with LST.ENABLED) "
            'LST.DISTILL.MODE "online"'
        )
    if cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN > 0:
        raise ConfigError("stored outputs have no upside-down views: set INPUT.VERTICAL_FLIP_PROB_TRAIN 0.0")
    wanted = {0.0: {0}, 1.0: {1}}.get(float(cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN), {0, 1})
    if not wanted <= set(flips):
        raise ConfigError(
            f"{where} is {tuple(flips)}, but INPUT.HORIZONTAL_FLIP_PROB_TRAIN "
            f"{cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN} needs {tuple(sorted(wanted))}"
        )
