"""The workflow of the LST release: one phase at a time from released files, without the scheduler.

A phase is described by the yaml keys of the release: DATASETS (derived annotation files),
DATASETS.SORTED_IDS, MODEL.QRY_* (index files of the replay), MODEL.USE_DISTILL with DISTILL_WEIGHTS_FILE and
NUM_DISTILL_CLASSES, or MODEL.GENERATE_DISTILL. Samplers, data sets, losses and loop are those of the
scheduler.
"""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.checkpointer import LAST
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.config.catalog import resolve_dataset, resolve_weight
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.engine.train import TrainSummary
from maskrcnn_benchmark.engine.train_and_test import (
    check_class_count,
    load_test_weights,
    test_plain,
    train_on,
)
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.distillation.dump import dump_store
from maskrcnn_benchmark.incremental.distillation.json_files import export_logits
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, DistillStore
from maskrcnn_benchmark.incremental.distillation.views import check_stored_views, stored_size
from maskrcnn_benchmark.incremental.growth.checkpoint import check_class_list
from maskrcnn_benchmark.incremental.plan.phases import classes_hash
from maskrcnn_benchmark.incremental.plan.run_folder import STORE_FOLDER
from maskrcnn_benchmark.incremental.released.inputs import (
    category_order,
    open_lookup,
    sorted_ids,
    train_annotations,
    train_batches,
    train_dataset,
)
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.comm import on_main
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import sha256_file

logger = logging.getLogger(__name__)
LOGITS_FILE = "distilled_logits.json"


def is_released(cfg: CfgNode) -> bool:
    """Whether the keys of the release request one phase of LST without the scheduler."""
    model = cfg.MODEL
    requested = model.QRY_BALANCE or model.USE_DISTILL or model.GENERATE_DISTILL or cfg.DATASETS.SORTED_IDS
    return bool(requested) and not cfg.LST.ENABLED


def run_released(cfg: CfgNode, *, test: bool = True) -> None:
    """Store logits (MODEL.GENERATE_DISTILL), or train a phase and `test` it; collective over ranks."""
    if cfg.MODEL.GENERATE_DISTILL:
        store, logits = (Path(cfg.OUTPUT_DIR) / name for name in (STORE_FOLDER, LOGITS_FILE))
        dump_released(cfg, store, logits)
        logger.info("stored the outputs in %s and %s", store, logits)
        return
    model, summary = train_released(cfg, tested_after=test)
    logger.info("trained %s: %d iterations", summary.weights, summary.iterations)
    if cfg.DATASETS.TEST and test:
        test_plain(cfg, model, category_order=category_order(cfg))


def train_released(cfg: CfgNode, *, tested_after: bool = False) -> tuple[nn.Module, TrainSummary]:
    """Train the phase into OUTPUT_DIR, resuming where it was stopped; collective over ranks.

    `tested_after`: see `train_plain`.

    Raises:
        UsageError: when files, class order, start weights and class counts do not belong together.
    """
    order = category_order(cfg)
    dataset = train_dataset(cfg, order)
    check_class_count(cfg, dataset, cfg.DATASETS.TRAIN[0])
    _check_start(cfg, dataset.class_names)
    lookup = open_lookup(cfg, dataset) if cfg.MODEL.USE_DISTILL else None
    return train_on(
        cfg,
        dataset,
        train_batches(cfg, dataset),
        distill=lookup,
        category_order=order,
        tested_after=tested_after,
    )


def test_released(cfg: CfgNode, ckpt: str | None = None) -> dict[str, EvaluationReport]:
    """Test a phase's model on DATASETS.TEST, AP per class group from `step_state`; collective over ranks.

    `ckpt`: see `load_test_weights`.
    """
    model = build_detection_model(cfg)
    path = load_test_weights(cfg, model, ckpt)
    if cfg.DATASETS.TEST and Path(path).is_file():
        file = AnnotationFile.load(resolve_dataset(cfg, cfg.DATASETS.TEST[0]).ann_file)
        names = {c["id"]: c["name"] for c in file.categories}
        known = [names.get(category, "nothing") for category in category_order(cfg)]
        check_class_list(read_checkpoint(path), ["__background__", *known], path)
    return test_plain(cfg, model, category_order=category_order(cfg))


test_released.__test__ = False  # type: ignore[attr-defined]  # the name is a command, not a test case


def dump_released(cfg: CfgNode, store: Path, logits: Path | None) -> None:
    """Store the cosines of MODEL.WEIGHT on the new-class boxes of DATASETS.TRAIN; collective over ranks.

    The classes of the data set beyond MODEL.NUM_DISTILL_CLASSES are new.

    Args:
        store: folder of the store. logits: released file written in addition, or None.
    """
    num_old, outputs = cfg.MODEL.NUM_DISTILL_CLASSES, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES
    if outputs != num_old + 1:
        raise ConfigError(
            "MODEL.GENERATE_DISTILL stores the outputs of the previous phase's model: set "
            f"MODEL.ROI_BOX_HEAD.NUM_CLASSES to MODEL.NUM_DISTILL_CLASSES + 1 = {num_old + 1}, "
            f"found {outputs}"
        )
    if not cfg.MODEL.WEIGHT:
        raise ConfigError("MODEL.GENERATE_DISTILL needs MODEL.WEIGHT, the previous phase's model")
    flips = tuple(cfg.LST.DISTILL.FLIPS)
    if logits is not None and flips != (0, 1):
        raise ConfigError(f"{logits.name} holds both views: set LST.DISTILL.FLIPS (0, 1), found {flips}")
    check_stored_views(cfg, flips, "LST.DISTILL.FLIPS", "MODEL.GENERATE_DISTILL")
    annotations = train_annotations(cfg)
    order = sorted_ids(cfg, len(annotations.categories))
    plain = train_dataset(cfg, order, annotations, 0)
    if len(plain.class_names) <= outputs:
        raise ConfigError(
            f"{annotations.path} has {len(order)} categories, none beyond the {num_old} old ones "
            "(MODEL.NUM_DISTILL_CLASSES): give the training file of the next step"
        )
    path = resolve_weight(cfg, cfg.MODEL.WEIGHT)
    if Path(path).is_file():
        check_class_list(read_checkpoint(path), plain.class_names[:outputs], path)
    header = DistillHeader(
        phase=cfg.LST.PHASE,
        num_old=num_old,
        classes_hash=classes_hash(order[:num_old], plain.class_names[1:outputs]),
        checkpoint=sha256_file(path) if Path(path).is_file() else "",
        input_size=stored_size(cfg),
        flips=flips,
        dtype=cfg.LST.DISTILL.DTYPE,
    )
    teacher = build_detection_model(cfg)
    load_weights(teacher, path, conv_body=cfg.MODEL.BACKBONE.CONV_BODY)
    dump_store(
        cfg,
        teacher,
        lambda flip: train_dataset(cfg, order, annotations, flip) if flip else plain,
        store,
        header,
        shard_folder=cfg.OUTPUT_DIR,
        what="storing outputs",
    )
    if logits is not None:
        on_main(lambda: export_logits(DistillStore(store), logits))


def _check_start(cfg: CfgNode, names: list[str]) -> None:
    """Raise CheckpointError when the run starts from a MODEL.WEIGHT that stores another class list."""
    path = Path(resolve_weight(cfg, cfg.MODEL.WEIGHT))
    starts = cfg.MODEL.WEIGHT and not (Path(cfg.OUTPUT_DIR) / LAST).exists()
    if starts and path.is_file() and not cfg.MODEL.WEIGHT_ALLOW_MISMATCH:
        check_class_list(read_checkpoint(path), names, path)
