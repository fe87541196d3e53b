"""The class list of a model, and the labels that it gives to the categories of training and test data.

The list of a model is that of its checkpoint or training data, else that of DATASETS.TRAIN; where none is
known, labels are in the order of the tested file (published checkpoints carry no list).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.checkpointer import last_checkpoint
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.catalog import resolve_dataset
from maskrcnn_benchmark.config.models import class_count
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.class_lists import read_class_list
from maskrcnn_benchmark.structures.class_list import ClassList, map_classes
from maskrcnn_benchmark.utils.errors import CheckpointError, UsageError

logger = logging.getLogger(__name__)
_TESTED = "the tested data has other classes than the model"


def known_classes(cfg: CfgNode, model: nn.Module) -> ClassList | None:
    """The class list of a model that will be tested; None, with a line in the log, where none is known."""
    outputs = class_count(cfg)
    if outputs is None:  # proposals have no classes
        return None
    stored: ClassList | None = getattr(model, "class_list", None)
    if stored is not None:
        if len(stored) + 1 == outputs:
            return stored
        reason = f"{stored.source} names {len(stored)} classes for {outputs - 1}"
    else:
        reason = "the weights carry no class list"
    if not cfg.DATASETS.TRAIN:
        more = "DATASETS.TRAIN is empty"
    else:
        try:
            trained = read_class_list(resolve_dataset(cfg, cfg.DATASETS.TRAIN[0]))
            if len(trained) + 1 == outputs:
                return replace(trained, source=f"{trained.source} (DATASETS.TRAIN)")
            more = f"{trained.source} (DATASETS.TRAIN) has {len(trained)} classes"
        except UsageError as error:
            more = f"DATASETS.TRAIN: {error}"
    logger.warning("%s, %s: labels are assumed to be in the order of the tested file", reason, more)
    return None


def tested_order(
    classes: ClassList | None, annotations: AnnotationFile, given: Sequence[int] | None = None
) -> list[int] | None:
    """Category ids of a tested file by label of the model; None for the order of the file.

    classes: of the model. given: ids by label, some of the file's; a model must have been trained with these.
    Raises DataError for other classes, with the differences side by side.
    """
    listed = ClassList.of_categories(annotations.categories, annotations.path)
    if given is not None:
        names = {record["id"]: record["name"] for record in annotations.categories}
        known = [category for category in given if category in names]
        listed = replace(listed, names=tuple(names[category] for category in known), ids=tuple(known))
        if classes is None or len(known) != len(given):  # the data set names unknown ids
            return list(given)
    if classes is None:
        return None
    advice = "test with the classes that the model was trained on"
    if "(DATASETS.TRAIN)" in classes.source:
        advice += ', or give DATASETS.TRAIN "()" for weights that were trained on other data'
    return map_classes(classes, listed, problem=_TESTED, advice=advice)


def set_trained_classes(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Set `class_list` of a model that is trained to the classes of a checkpoint's `record`.

    Logs a warning when the weights that it starts from were trained on others, label by label.
    """
    start: ClassList | None = getattr(model, "class_list", None)
    trained = ClassList.stored(record, "the training data")
    model.class_list = trained  # type: ignore[assignment]
    if start is None or trained is None or len(start) != len(trained):
        return
    pairs = zip(start.names, trained.names, strict=True)
    unlike = [label for label, (one, other) in enumerate(pairs, start=1) if one != other]
    if unlike:
        logger.warning(
            "%s was trained on other classes or another order of them: label %d is %r there and %r here (%d "
            "labels differ); their class weights start from those of other classes",
            start.source,
            unlike[0],
            start.names[unlike[0] - 1],
            trained.names[unlike[0] - 1],
            len(unlike),
        )


def check_test_classes(cfg: CfgNode, classes: ClassList, *, subset: bool = False) -> None:
    """Compare the classes of training with those of every set of DATASETS.TEST that is there.

    subset: these may have further ones, which are not tested. Raises DataError before training where testing
    would be refused.
    """
    if class_count(cfg) is None:
        return
    for name in cfg.DATASETS.TEST:
        try:
            tested = read_class_list(resolve_dataset(cfg, name))
        except UsageError:  # reported when it is opened
            continue
        advice = 'test with the classes that are trained, or give DATASETS.TEST "()" to train without testing'
        map_classes(classes, tested, subset=subset, problem=_TESTED, advice=advice)


def resumed_order(cfg: CfgNode) -> list[int] | None:
    """Category ids of DATASETS.TRAIN by label of the run that OUTPUT_DIR holds; None where it holds none.

    Raises DataError when that run has other classes.
    """
    stored = _run_classes(Path(cfg.OUTPUT_DIR))
    if stored is None or not cfg.DATASETS.TRAIN:
        return None
    return map_classes(
        stored,
        read_class_list(resolve_dataset(cfg, cfg.DATASETS.TRAIN[0])),
        problem=f"{cfg.OUTPUT_DIR} holds a run of another class list",
        advice="use another OUTPUT_DIR",
    )


def _run_classes(folder: Path) -> ClassList | None:
    """The class list of a run; None where it has no readable checkpoint, which resuming reports."""
    try:
        path = last_checkpoint(folder)
        if path is None:
            return None
        return ClassList.stored(read_checkpoint(path, "meta", verify=False), f"checkpoint {path}")
    except CheckpointError:
        return None
