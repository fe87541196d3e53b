"""Check for settings without effect, because another key switches off what they belong to."""

from __future__ import annotations

from collections.abc import Iterator

from yacs.config import CfgNode

from maskrcnn_benchmark.config.compat import NO_NECK, USE_C5
from maskrcnn_benchmark.config.family import UnusedKeys
from maskrcnn_benchmark.config.keys import get_value, leaves
from maskrcnn_benchmark.config.models import families, has_roi_heads, model_family, model_neck
from maskrcnn_benchmark.doctor.checkup import Checkup
from maskrcnn_benchmark.doctor.finding import Finding, note, ok, warning

NO_EFFECT = "no effect"
"""How comments of keys begin that are only read from published files."""

C4, XCONV = "ResNet50Conv5ROIFeatureExtractor", "FPNXconv1fcFeatureExtractor"
_DERIVED = ("MAX_ITER", "STEPS")  # SOLVER keys of a step that follow from its epoch length


def _parts(*names: str, node: str) -> tuple[str, ...]:
    return tuple(f"{node}.{name}" for name in names)


def _uses_group_norm(cfg: CfgNode) -> bool:
    model = cfg.MODEL
    names = (model.RESNETS.TRANS_FUNC, model.RESNETS.STEM_FUNC)
    return any(n.endswith("GN") for n in names) or (
        model.FPN.USE_GN or model.ROI_BOX_HEAD.USE_GN or model.ROI_MASK_HEAD.USE_GN
    )


def _fixed(cfg: CfgNode, part: str) -> bool:
    return any(cfg.INPUT[f"FIXED_SIZE_{part}"])


def _ranged(cfg: CfgNode) -> bool:
    return min(cfg.INPUT.MIN_SIZE_RANGE_TRAIN) > 0


def _deforms(cfg: CfgNode) -> bool:
    """Return whether backbone or head has deformable convolutions that a key switches on."""
    key = model_family(cfg).deformable_key
    return any(cfg.MODEL.RESNETS.STAGE_WITH_DCN) or (key != "" and bool(get_value(cfg, key)))


def _box(cfg: CfgNode) -> str:
    return str(cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR)


_BOX, _MASK, _RPN, _RESNETS = "MODEL.ROI_BOX_HEAD", "MODEL.ROI_MASK_HEAD", "MODEL.RPN", "MODEL.RESNETS"
_SHARED = _parts(
    "POOLER_RESOLUTION", "POOLER_SCALES", "POOLER_SAMPLING_RATIO", "DILATION", "USE_GN", node=_MASK
)

RULES: tuple[UnusedKeys, ...] = (
    UnusedKeys((USE_C5,), lambda c: model_neck(c) != "fpn_p6p7", "the neck is not fpn_p6p7"),
    UnusedKeys(
        ("TEST.DETECTIONS_PER_IMG",),
        lambda c: not model_family(c).one_stage,
        "the model is two-stage",
    ),
    UnusedKeys(
        ("MODEL.ROI_KEYPOINT_HEAD.", "TEST.KEYPOINT_OKS_SIGMAS"),
        lambda c: not c.MODEL.KEYPOINT_ON or not has_roi_heads(c),
        "there is no keypoint head",
    ),
    UnusedKeys(("MODEL.FBNET.",), lambda c: True, "the mobile backbone is not provided"),
    UnusedKeys(
        (f"{_BOX}.", "MODEL.ROI_HEADS.", "MODEL.MASK_ON", "MODEL.KEYPOINT_ON"),
        lambda c: not has_roi_heads(c),
        "there are no RoI heads",
    ),
    UnusedKeys(
        (f"{_MASK}.",), lambda c: not c.MODEL.MASK_ON or not has_roi_heads(c), "there is no mask head"
    ),
    UnusedKeys(
        _SHARED,
        lambda c: c.MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR,
        "the box head's features are shared",
    ),
    UnusedKeys(
        (f"{_MASK}.POSTPROCESS_MASKS_THRESHOLD",),
        lambda c: not c.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS,
        "POSTPROCESS_MASKS is False",
    ),
    UnusedKeys(("MODEL.FPN.",), lambda c: model_neck(c) == NO_NECK, "the model has no neck"),
    UnusedKeys(("MODEL.GROUP_NORM.",), lambda c: not _uses_group_norm(c), "no layer uses group norm"),
    UnusedKeys(
        _parts("FPN_POST_NMS_TOP_N_TRAIN", "FPN_POST_NMS_TOP_N_TEST", "FPN_POST_NMS_PER_BATCH", node=_RPN),
        lambda c: not c.MODEL.RPN.USE_FPN,
        "MODEL.RPN.USE_FPN is False",
    ),
    UnusedKeys((f"{_RESNETS}.RES5_DILATION",), lambda c: _box(c) != C4, "only the C4 box head uses it"),
    UnusedKeys(
        _parts("WITH_MODULATED_DCN", "DEFORMABLE_GROUPS", "DCN_INTERVAL", node=_RESNETS),
        lambda c: not any(c.MODEL.RESNETS.STAGE_WITH_DCN),
        "no stage is deformable",
    ),
    UnusedKeys(
        _parts("DILATION", "CONV_HEAD_DIM", "NUM_STACKED_CONVS", node=_BOX),
        lambda c: _box(c) != XCONV,
        f"only {XCONV} uses it",
    ),
    UnusedKeys((f"{_BOX}.MLP_HEAD_DIM",), lambda c: _box(c) == C4, "the C4 box head has no such layer"),
    UnusedKeys(
        ("MODEL.FEW_SHOT.",), lambda c: "Cosine" not in c.MODEL.ROI_BOX_HEAD.PREDICTOR, "no cosine classifier"
    ),
    UnusedKeys(
        ("MODEL.QRY_BALANCE", "MODEL.USE_DISTILL", "MODEL.NUM_DISTILL_CLASSES"),
        lambda c: True,
        "the phases of LST.ENABLED runs set it",
    ),
    UnusedKeys(("MODEL.QRY_INDICE_CLS",), lambda c: True, "published plans are named by LST.REPLAY.FILE_*"),
    UnusedKeys(
        ("MODEL.DISTILL_WEIGHTS_FILE",), lambda c: True, "published logits are named by LST.DISTILL.FILE"
    ),
    UnusedKeys(
        ("SOLVER.STEPS", "SOLVER.GAMMA"),
        lambda c: c.SOLVER.LR_SCHEDULER == "cosine",
        "LR_SCHEDULER is cosine",
    ),
    UnusedKeys(("SOLVER.MOMENTUM",), lambda c: c.SOLVER.OPTIMIZER != "SGD", "OPTIMIZER is not SGD"),
    UnusedKeys(
        ("SOLVER.CLIP_GRADIENTS.TYPE", "SOLVER.CLIP_GRADIENTS.VALUE"),
        lambda c: not c.SOLVER.CLIP_GRADIENTS.ENABLED,
        "CLIP_GRADIENTS.ENABLED is False",
    ),
    UnusedKeys(
        ("SOLVER.DCONV_OFFSETS_LR_FACTOR",), lambda c: not _deforms(c), "no convolution predicts offsets"
    ),
    UnusedKeys(
        ("INPUT.MIN_SIZE_TRAIN",), lambda c: _fixed(c, "TRAIN") or _ranged(c), "another key gives the size"
    ),
    UnusedKeys(
        ("INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_RANGE_TRAIN"),
        lambda c: _fixed(c, "TRAIN"),
        "INPUT.FIXED_SIZE_TRAIN gives the size",
    ),
    UnusedKeys(
        ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"),
        lambda c: _fixed(c, "TEST"),
        "INPUT.FIXED_SIZE_TEST gives the size",
    ),
    UnusedKeys(("INPUT.SSD_AUG.",), lambda c: not c.INPUT.SSD_AUG.ENABLED, "INPUT.SSD_AUG.ENABLED is False"),
    UnusedKeys(("TEST.BBOX_AUG.",), lambda c: not c.TEST.BBOX_AUG.ENABLED, "BBOX_AUG.ENABLED is False"),
    UnusedKeys(("LST.",), lambda c: not c.LST.ENABLED, "LST.ENABLED is False"),
    UnusedKeys(("DATASETS.",), lambda c: c.LST.ENABLED, "phases read LST.ANN_* and LST.IMG_*"),
    UnusedKeys((f"{_BOX}.NUM_CLASSES",), lambda c: c.LST.ENABLED, "it follows from the phases"),
    UnusedKeys(
        ("MODEL.BACKBONE.FREEZE_CONV_BODY_AT",),
        lambda c: c.LST.ENABLED,
        "phases take LST.FREEZE_BASE and LST.FREEZE_STEP",
    ),
    UnusedKeys(("LST.PHASE",), lambda c: True, "the scheduler sets it"),
    UnusedKeys(("LST.SORT_BY",), lambda c: bool(c.LST.SORTED_IDS), "LST.SORTED_IDS gives the order"),
    UnusedKeys(
        ("LST.STEP_MILESTONES",), lambda c: "STEPS" in c.LST.SOLVER_STEP, "LST.SOLVER_STEP.STEPS is given"
    ),
    UnusedKeys(
        ("LST.REPLAY.EPOCHS",), lambda c: "MAX_ITER" in c.LST.SOLVER_STEP, "LST.SOLVER_STEP.MAX_ITER is given"
    ),
    UnusedKeys(
        ("LST.REPLAY.MODE", "LST.REPLAY.MIN_PER_CLASS"),
        lambda c: not c.LST.REPLAY.ENABLED,
        "LST.REPLAY.ENABLED is False",
    ),
    UnusedKeys(
        ("LST.REPLAY.FILE_IMAGES", "LST.REPLAY.FILE_CLASSES"),
        lambda c: c.LST.REPLAY.MODE != "file",
        "LST.REPLAY.MODE is not file",
    ),
    UnusedKeys(
        _parts("WEIGHT", "FLIPS", "DTYPE", "FILE", node="LST.DISTILL"),
        lambda c: not c.LST.DISTILL.ENABLED,
        "LST.DISTILL.ENABLED is False",
    ),
)


def check_unused(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on settings without effect, and on outdated keys in the files."""
    for line in checkup.notes:
        yield note(line)
    cfg = checkup.cfg
    reasons: dict[str, list[str]] = {}
    for setting in checkup.settings:
        reason = _reason(cfg, setting.key, setting.meaning)
        if reason:
            reasons.setdefault(reason, []).append(setting.key)
    for reason, keys in reasons.items():
        yield note(f"without effect: {reason}", *keys)
    if not reasons:
        yield ok("every setting has an effect")
    for key, instead in (
        ("MODEL.USE_DISTILL", "LST.DISTILL.ENABLED"),
        ("MODEL.QRY_BALANCE", "LST.REPLAY.ENABLED"),
    ):
        if cfg.MODEL[key.rpartition(".")[2]] and not cfg.LST.ENABLED:
            yield warning(
                f"{key} is True, but without LST.ENABLED there is no step that could do it",
                key,
                "LST.ENABLED",
                advice=f"train in phases: LST.ENABLED True with {instead} (configs/lst holds examples)",
            )


def _reason(cfg: CfgNode, key: str, meaning: str) -> str:
    """Return why a setting has no effect; "" when it has one."""
    if meaning.startswith(NO_EFFECT):
        return meaning.removeprefix(NO_EFFECT).lstrip("; ") or "read from published files"
    if cfg.LST.ENABLED and key.startswith("SOLVER."):
        name = key.split(".")[1]
        in_steps = name in cfg.LST.SOLVER_STEP or name in _DERIVED
        if name in cfg.LST.SOLVER_BASE and in_steps and name != "CLIP_GRADIENTS":
            return "LST.SOLVER_BASE and LST.SOLVER_STEP (or the epoch length) give it"
    rules = (*_family_rules(cfg), *RULES)
    return next((rule.reason for rule in rules if rule.covers(key) and rule.applies(cfg)), "")


def _family_rules(cfg: CfgNode) -> Iterator[UnusedKeys]:
    """Yield the sections of the families that the model is not, and what the model's family declares."""
    chosen = model_family(cfg)
    for family in families():
        if family.name == chosen.name:
            yield from family.unused
        elif family.section:
            key = f"MODEL.{family.section}."
            why = f"{family.switch} is False" if family.switch else f"MODEL.HEAD is not {family.name}"
            shared = (setting for setting, _ in leaves(cfg) if setting.startswith(key) and setting != USE_C5)
            yield UnusedKeys(tuple(shared), lambda cfg: True, f"the model is not {family.title}: {why}")
