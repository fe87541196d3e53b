"""Check the whole config before a run starts rather than hours into it.

Names of registered parts are not checked here: the registry that builds them lists what it knows.
"""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import KINDS, known_kinds
from maskrcnn_benchmark.config.checks.family import check_family
from maskrcnn_benchmark.config.checks.input import check_input
from maskrcnn_benchmark.config.checks.lst import check_lst
from maskrcnn_benchmark.config.checks.validators import at_least, choice, fraction, require
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.text import shortened

CHOICES: dict[str, tuple[str, ...]] = {
    "DTYPE": ("float32", "float16", "bfloat16"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
    "SOLVER.LR_SCHEDULER": ("step", "cosine"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.TYPE": ("norm", "value"),
    "DATALOADER.BAD_IMAGE": ("error", "skip"),
    "MODEL.BACKBONE.NORM": ("frozen", "train"),
    "TEST.LVIS_PROTOCOL": ("standard", "fixed"),
    "TEST.VOC_METRIC": ("11point", "area"),
    "DATALOADER.SAMPLER": ("shuffle", "class_aware", "repeat_factor"),
}
MINIMA: dict[str, float] = {
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.ACCUMULATION_STEPS": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.LOG_PERIOD": 1,
    "SOLVER.TEST_PERIOD": 0,
    "SOLVER.KEEP_CHECKPOINTS": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.BASE_LR": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "SOLVER.DCONV_OFFSETS_LR_FACTOR": 0,
    "TEST.IMS_PER_BATCH": 1,
    "TEST.FIXED_DETS_PER_CLASS": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.SIZE_DIVISIBILITY": 0,
    "DATALOADER.REPEAT_THRESHOLD": 0,
    "INPUT.MAX_SIZE_TRAIN": 1,
    "INPUT.MIN_SIZE_TEST": 1,
    "INPUT.MAX_SIZE_TEST": 1,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 1,
    "MODEL.RESNETS.DCN_INTERVAL": 1,
    "MODEL.RESNETS.FROZEN_BN_EPS": 0,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 1,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 1,
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 1,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 1,
}
FRACTIONS = (
    "MODEL.RPN.POSITIVE_FRACTION",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "MODEL.RPN.NMS_THRESH",
    "MODEL.ROI_HEADS.NMS",
    "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD",
    "INPUT.HORIZONTAL_FLIP_PROB_TRAIN",
    "INPUT.VERTICAL_FLIP_PROB_TRAIN",
    "SOLVER.WARMUP_FACTOR",
)


def check_config(cfg: CfgNode) -> None:
    """Check the whole tree.

    Raises:
        ConfigError: one line with the keys at odds, what they hold and what would fit.
    """
    for key, names in CHOICES.items():
        choice(cfg, key, names)
    for key, minimum in MINIMA.items():
        at_least(cfg, key, minimum)
    for key in FRACTIONS:
        fraction(cfg, key)
    check_input(cfg)
    _check_datasets(cfg)
    _check_solver(cfg)
    check_family(cfg)
    _check_group_norm(cfg)
    check_lst(cfg)


def _check_datasets(cfg: CfgNode) -> None:
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            require(
                isinstance(name, str) and name != "", f"DATASETS.{key} must hold names, got {shortened(name)}"
            )
    for name, entry in cfg.DATASETS.REGISTER.items():
        here = f"DATASETS.REGISTER.{name}"
        missing = [k for k in ("KIND", "ANN_FILE", "IMG_DIR") if not entry.get(k)]
        require(not missing, f"{here} has no {' and no '.join(missing)}")
        require(entry.KIND in KINDS, f"{here}.KIND must be {known_kinds()}, got {shortened(entry.KIND)}")
        classes = entry.get("CLASSES", ())
        named = " or ".join(kind for kind, row in KINDS.items() if row.names_classes)
        require(
            not classes or KINDS[entry.KIND].names_classes,
            f"{here}.CLASSES is for KIND {named}; files of KIND {entry.KIND} name their classes themselves",
        )
        require(len(set(classes)) == len(classes), f"{here}.CLASSES names a class twice")


def _check_solver(cfg: CfgNode) -> None:
    steps = cfg.SOLVER.STEPS
    ascending = all(a < b for a, b in zip(steps, steps[1:], strict=False))
    require(ascending, f"SOLVER.STEPS must ascend, got {tuple(steps)}")
    require(
        not cfg.SOLVER.CLIP_GRADIENTS.ENABLED or cfg.SOLVER.CLIP_GRADIENTS.VALUE > 0,
        f"SOLVER.CLIP_GRADIENTS.VALUE must be above 0, got {cfg.SOLVER.CLIP_GRADIENTS.VALUE}",
    )
    require(
        not cfg.SOLVER.USE_CAS or cfg.DATALOADER.SAMPLER != "repeat_factor",
        "SOLVER.USE_CAS means DATALOADER.SAMPLER class_aware, but it is repeat_factor; set USE_CAS False",
    )


def _check_group_norm(cfg: CfgNode) -> None:
    node = cfg.MODEL.GROUP_NORM
    groups, width = node.NUM_GROUPS, node.DIM_PER_GP
    if (groups > 0) == (width > 0):
        raise ConfigError(
            f"give either MODEL.GROUP_NORM.NUM_GROUPS ({groups}) or MODEL.GROUP_NORM.DIM_PER_GP ({width}) "
            "and set the other one to -1"
        )
