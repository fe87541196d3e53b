"""Settings that change nothing in this run, because another key switches off what they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from yacs.config import CfgNode

from maskrcnn_benchmark.config.classes import has_region_heads, one_stage_model
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.doctor.checkup import Checkup
from maskrcnn_benchmark.doctor.finding import Finding, note, ok, warning

NO_EFFECT = "no effect"
"""How comments of keys begin that are only read from published files."""

C4, XCONV = "ResNet50Conv5ROIFeatureExtractor", "FPNXconv1fcFeatureExtractor"
_DERIVED = ("MAX_ITER", "STEPS")  # SOLVER keys of a step that follow from its epoch length


@dataclass(frozen=True)
class Rule:
    """`keys`: full keys, or beginnings that end in a dot. They have no effect when `applies`."""

    keys: tuple[str, ...]
    applies: Callable[[CfgNode], bool]
    reason: str

    def covers(self, key: str) -> bool:
        """Whether the rule is about a key."""
        return any(key == k or (k.endswith(".") and key.startswith(k)) for k in self.keys)


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
    """Whether the body or a tower has convolutions with offsets of their own."""
    name = one_stage_model(cfg)
    in_tower = name in ("FCOS", "SIPMASK") and cfg.MODEL[name].USE_DCN_IN_TOWER
    return any(cfg.MODEL.RESNETS.STAGE_WITH_DCN) or in_tower


def _box(cfg: CfgNode) -> str:
    return str(cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR)


_BOX, _MASK, _RPN, _RESNETS = "MODEL.ROI_BOX_HEAD", "MODEL.ROI_MASK_HEAD", "MODEL.RPN", "MODEL.RESNETS"
_SHARED = _parts(
    "POOLER_RESOLUTION", "POOLER_SCALES", "POOLER_SAMPLING_RATIO", "DILATION", "USE_GN", node=_MASK
)

# The pyramid of every one-stage model asks for this key; the others of its section are RetinaNet's own.
_USE_C5 = "MODEL.RETINANET.USE_C5"
_RETINANET = tuple(
    key for key, _ in leaves(get_cfg()) if key.startswith("MODEL.RETINANET.") and key != _USE_C5
)

RULES: tuple[Rule, ...] = (
    Rule(
        (_USE_C5, "TEST.DETECTIONS_PER_IMG"),
        lambda c: one_stage_model(c) is None,
        "the model is two-stage: RETINANET_ON, FCOS_ON and SIPMASK_ON are False",
    ),
    Rule(_RETINANET, lambda c: not c.MODEL.RETINANET_ON, "RETINANET_ON is False"),
    Rule(("MODEL.FCOS.",), lambda c: not c.MODEL.FCOS_ON, "FCOS_ON is False"),
    Rule(("MODEL.SIPMASK.",), lambda c: not c.MODEL.SIPMASK_ON, "SIPMASK_ON is False"),
    Rule(
        _parts("FAST_NMS_TOP_K", node="MODEL.SIPMASK"),
        lambda c: c.MODEL.SIPMASK.NMS_TYPE != "fast",
        "MODEL.SIPMASK.NMS_TYPE is not fast",
    ),
    Rule(
        ("MODEL.SIPMASK.DISTANCES",),
        lambda c: not c.MODEL.SIPMASK.NORM_REG_TARGETS,
        "MODEL.SIPMASK.NORM_REG_TARGETS is False",
    ),
    Rule(
        ("MODEL.ROI_KEYPOINT_HEAD.", "TEST.KEYPOINT_OKS_SIGMAS"),
        lambda c: not c.MODEL.KEYPOINT_ON or not has_region_heads(c),
        "there is no keypoint head",
    ),
    Rule(("MODEL.FBNET.",), lambda c: True, "the mobile backbone is not provided"),
    Rule(
        (f"{_BOX}.", "MODEL.ROI_HEADS.", "MODEL.MASK_ON", "MODEL.KEYPOINT_ON"),
        lambda c: not has_region_heads(c),
        "there are no region heads",
    ),
    Rule((f"{_MASK}.",), lambda c: not c.MODEL.MASK_ON or not has_region_heads(c), "there is no mask head"),
    Rule(
        _SHARED,
        lambda c: c.MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR,
        "the box head's features are shared",
    ),
    Rule(
        (f"{_MASK}.POSTPROCESS_MASKS_THRESHOLD",),
        lambda c: not c.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS,
        "POSTPROCESS_MASKS is False",
    ),
    Rule(("MODEL.FPN.",), lambda c: "-FPN" not in c.MODEL.BACKBONE.CONV_BODY, "the body has no pyramid"),
    Rule(("MODEL.GROUP_NORM.",), lambda c: not _uses_group_norm(c), "no layer uses group norm"),
    Rule(
        _parts("FPN_POST_NMS_TOP_N_TRAIN", "FPN_POST_NMS_TOP_N_TEST", "FPN_POST_NMS_PER_BATCH", node=_RPN),
        lambda c: not c.MODEL.RPN.USE_FPN,
        "MODEL.RPN.USE_FPN is False",
    ),
    Rule((f"{_RESNETS}.RES5_DILATION",), lambda c: _box(c) != C4, "only the C4 box head uses it"),
    Rule(
        _parts("WITH_MODULATED_DCN", "DEFORMABLE_GROUPS", "DCN_INTERVAL", node=_RESNETS),
        lambda c: not any(c.MODEL.RESNETS.STAGE_WITH_DCN),
        "no stage is deformable",
    ),
    Rule(
        _parts("DILATION", "CONV_HEAD_DIM", "NUM_STACKED_CONVS", node=_BOX),
        lambda c: _box(c) != XCONV,
        f"only {XCONV} uses it",
    ),
    Rule((f"{_BOX}.MLP_HEAD_DIM",), lambda c: _box(c) == C4, "the C4 box head has no such layer"),
    Rule(
        ("MODEL.FEW_SHOT.",), lambda c: "Cosine" not in c.MODEL.ROI_BOX_HEAD.PREDICTOR, "no cosine classifier"
    ),
    Rule(
        ("MODEL.QRY_BALANCE", "MODEL.USE_DISTILL", "MODEL.NUM_DISTILL_CLASSES"),
        lambda c: True,
        "the phases of LST.ENABLED runs set it",
    ),
    Rule(("MODEL.QRY_INDICE_CLS",), lambda c: True, "published plans are named by LST.REPLAY.FILE_*"),
    Rule(("MODEL.DISTILL_WEIGHTS_FILE",), lambda c: True, "published logits are named by LST.DISTILL.FILE"),
    Rule(
        ("SOLVER.STEPS", "SOLVER.GAMMA"),
        lambda c: c.SOLVER.LR_SCHEDULER == "cosine",
        "LR_SCHEDULER is cosine",
    ),
    Rule(("SOLVER.MOMENTUM",), lambda c: c.SOLVER.OPTIMIZER != "SGD", "OPTIMIZER is not SGD"),
    Rule(
        ("SOLVER.CLIP_GRADIENTS.TYPE", "SOLVER.CLIP_GRADIENTS.VALUE"),
        lambda c: not c.SOLVER.CLIP_GRADIENTS.ENABLED,
        "CLIP_GRADIENTS.ENABLED is False",
    ),
    Rule(("SOLVER.DCONV_OFFSETS_LR_FACTOR",), lambda c: not _deforms(c), "no convolution predicts offsets"),
    Rule(("INPUT.MIN_SIZE_TRAIN",), lambda c: _fixed(c, "TRAIN") or _ranged(c), "another key gives the size"),
    Rule(
        ("INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_RANGE_TRAIN"),
        lambda c: _fixed(c, "TRAIN"),
        "INPUT.FIXED_SIZE_TRAIN gives the size",
    ),
    Rule(
        ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"),
        lambda c: _fixed(c, "TEST"),
        "INPUT.FIXED_SIZE_TEST gives the size",
    ),
    Rule(("INPUT.SSD_AUG.",), lambda c: not c.INPUT.SSD_AUG.ENABLED, "INPUT.SSD_AUG.ENABLED is False"),
    Rule(("TEST.BBOX_AUG.",), lambda c: not c.TEST.BBOX_AUG.ENABLED, "BBOX_AUG.ENABLED is False"),
    Rule(("LST.",), lambda c: not c.LST.ENABLED, "LST.ENABLED is False"),
    Rule(("DATASETS.",), lambda c: c.LST.ENABLED, "phases read LST.ANN_* and LST.IMG_*"),
    Rule((f"{_BOX}.NUM_CLASSES",), lambda c: c.LST.ENABLED, "it follows from the phases"),
    Rule(
        ("MODEL.BACKBONE.FREEZE_CONV_BODY_AT",),
        lambda c: c.LST.ENABLED,
        "phases take LST.FREEZE_BASE and LST.FREEZE_STEP",
    ),
    Rule(("LST.PHASE",), lambda c: True, "the scheduler sets it"),
    Rule(("LST.SORT_BY",), lambda c: bool(c.LST.SORTED_IDS), "LST.SORTED_IDS gives the order"),
    Rule(("LST.STEP_MILESTONES",), lambda c: "STEPS" in c.LST.SOLVER_STEP, "LST.SOLVER_STEP.STEPS is given"),
    Rule(
        ("LST.REPLAY.EPOCHS",), lambda c: "MAX_ITER" in c.LST.SOLVER_STEP, "LST.SOLVER_STEP.MAX_ITER is given"
    ),
    Rule(
        ("LST.REPLAY.MODE", "LST.REPLAY.MIN_PER_CLASS"),
        lambda c: not c.LST.REPLAY.ENABLED,
        "LST.REPLAY.ENABLED is False",
    ),
    Rule(
        ("LST.REPLAY.FILE_IMAGES", "LST.REPLAY.FILE_CLASSES"),
        lambda c: c.LST.REPLAY.MODE != "file",
        "LST.REPLAY.MODE is not file",
    ),
    Rule(
        _parts("WEIGHT", "FLIPS", "DTYPE", "FILE", node="LST.DISTILL"),
        lambda c: not c.LST.DISTILL.ENABLED,
        "LST.DISTILL.ENABLED is False",
    ),
)


def check_unused(checkup: Checkup) -> Iterator[Finding]:
    """Findings on settings without effect, and on outdated keys in the files."""
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
    """Why a setting changes nothing; "" when it does."""
    if meaning.startswith(NO_EFFECT):
        return meaning.removeprefix(NO_EFFECT).lstrip("; ") or "read from published files"
    if cfg.LST.ENABLED and key.startswith("SOLVER."):
        name = key.split(".")[1]
        in_steps = name in cfg.LST.SOLVER_STEP or name in _DERIVED
        if name in cfg.LST.SOLVER_BASE and in_steps and name != "CLIP_GRADIENTS":
            return "LST.SOLVER_BASE and LST.SOLVER_STEP (or the epoch length) give it"
    return next((rule.reason for rule in RULES if rule.covers(key) and rule.applies(cfg)), "")
