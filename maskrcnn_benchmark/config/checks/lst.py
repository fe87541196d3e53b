"""Check the keys of long-tail training in phases (node LST)."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.validators import at_least, choice, require
from maskrcnn_benchmark.config.merge import merge_pairs
from maskrcnn_benchmark.config.user_catalog import CATALOG_KEY, check_catalog_source
from maskrcnn_benchmark.utils.text import shortened

CHOICES: dict[str, tuple[str, ...]] = {
    "LST.SORT_BY": ("instance_count", "image_count", "file"),
    "LST.VAL_IMAGES": ("all", "positive"),
    "LST.REPLAY.MODE": ("online", "file"),
    "LST.DISTILL.MODE": ("file", "online"),
    "LST.DISTILL.DTYPE": ("float32", "float16"),
    "LST.GROW.INIT": ("normal", "feature_mean", "meta"),
}
MINIMA: dict[str, float] = {
    "LST.BASE_SIZE": 1,
    "LST.PHASE": -1,
    "LST.FREEZE_BASE": 0,
    "LST.FREEZE_STEP": 0,
    "LST.ROI_BATCH_STEP": 1,
    "LST.REPLAY.EPOCHS": 1,
    "LST.REPLAY.MIN_PER_CLASS": 0,
    "LST.REPLAY.FALLBACK_POSITIVES": 0,
    "LST.DISTILL.WEIGHT": 0,
    "LST.GROW.CLS_STD": 0,
    "LST.GROW.REG_STD": 0,
    "LST.GROW.BOXES_PER_CLASS": 1,
    "LST.GROW.META.EPISODES": 1,
    "LST.GROW.META.CLASSES": 1,
    "LST.GROW.META.SHOTS": 1,
    "LST.GROW.META.LR": 0,
    "MODEL.NUM_DISTILL_CLASSES": 1,
}


def check_lst(cfg: CfgNode) -> None:
    """Check the node LST; the sizes of the phases are compared with the annotations by the scheduler.

    Raises:
        ConfigError: one line with the keys at odds.
    """
    for key, names in CHOICES.items():
        choice(cfg, key, names)
    for key, minimum in MINIMA.items():
        at_least(cfg, key, minimum)
    lst = cfg.LST
    sizes = lst.STEP_SIZE if isinstance(lst.STEP_SIZE, tuple) else (lst.STEP_SIZE,)
    require(
        all(isinstance(s, int) and s >= 1 for s in sizes),
        f"LST.STEP_SIZE must be a number of classes from 1 on, or a list of them, got {lst.STEP_SIZE}",
    )
    require(
        all(isinstance(s, int) and s >= 1 for s in lst.REPORT_SIZES),
        f"LST.REPORT_SIZES must list class counts from 1 on, got {tuple(lst.REPORT_SIZES)}",
    )
    require(
        all(isinstance(p, int) and p >= 0 for p in lst.PHASES),
        f"LST.PHASES must list phases from 0 on, got {tuple(lst.PHASES)}",
    )
    drops = lst.STEP_MILESTONES
    ascending = all(0 < s < 1 for s in drops) and list(drops) == sorted(set(drops))
    require(ascending, f"LST.STEP_MILESTONES must ascend between 0 and 1, got {tuple(drops)}")
    require(
        len(lst.DISTILL.FLIPS) > 0 and set(lst.DISTILL.FLIPS) <= {0, 1},
        f"LST.DISTILL.FLIPS must be (0,), (1,) or (0, 1), got {tuple(lst.DISTILL.FLIPS)}",
    )
    _check_overrides(cfg)
    if lst.ENABLED:
        _check_enabled(cfg)


def _check_overrides(cfg: CfgNode) -> None:
    """Require PHASE_OVERRIDES to be lists KEY, VALUE, ... that merge into the tree."""
    for phase, pairs in cfg.LST.PHASE_OVERRIDES.items():
        key = f"LST.PHASE_OVERRIDES.{phase}"
        require(phase.isdecimal(), f"{key}: phases are numbered 0 (base), 1, 2, ..., got {shortened(phase)}")
        require(isinstance(pairs, list), f"{key} must be a list [KEY, VALUE, ...], got {shortened(pairs)}")
        trial = cfg.clone()
        trial.defrost()
        merge_pairs(trial, pairs, key)
        if trial[CATALOG_KEY] != cfg[CATALOG_KEY]:
            check_catalog_source(trial, key)


def _check_enabled(cfg: CfgNode) -> None:
    lst = cfg.LST
    for key in ("ANN_TRAIN", "ANN_VAL", "IMG_TRAIN", "IMG_VAL"):
        require(lst[key] != "", f"LST.ENABLED needs LST.{key}, which is empty")
    if lst.REPLAY.ENABLED and lst.REPLAY.MODE == "file":
        for key in ("FILE_IMAGES", "FILE_CLASSES"):
            require(lst.REPLAY[key] != "", f"LST.REPLAY.MODE file needs LST.REPLAY.{key}, which is empty")
    require(
        lst.DISTILL.MODE == "file" or not lst.DISTILL.FILE,
        'LST.DISTILL.FILE names stored outputs: set LST.DISTILL.MODE "file", or LST.DISTILL.FILE ""',
    )
    require(
        not cfg.MODEL.GENERATE_DISTILL,
        "LST.ENABLED stores the logits of every phase by itself: set MODEL.GENERATE_DISTILL False",
    )
    predictor = cfg.MODEL.ROI_BOX_HEAD.PREDICTOR
    require(
        not lst.DISTILL.ENABLED or "Cosine" in predictor,
        f"LST.DISTILL.ENABLED compares cosines: MODEL.ROI_BOX_HEAD.PREDICTOR must be FPNCosinePredictor, "
        f"found {predictor}",
    )
    require(
        lst.GROW.INIT == "normal" or "Cosine" in predictor,
        f"LST.GROW.INIT {lst.GROW.INIT} makes weights of a cosine classifier: MODEL.ROI_BOX_HEAD.PREDICTOR "
        f'must be FPNCosinePredictor, got {predictor}; or set LST.GROW.INIT "normal"',
    )
