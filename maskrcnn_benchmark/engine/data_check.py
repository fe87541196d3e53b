"""Checks of all data of a run before anything is trained: what testing would refuse is refused now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import resolve_dataset
from maskrcnn_benchmark.data.build import AnyDataset, build_dataset
from maskrcnn_benchmark.data.datasets.detection import ConcatDataset, DetectionDataset
from maskrcnn_benchmark.data.datasets.image_files import check_images
from maskrcnn_benchmark.evaluation.base import DetectionEvaluator
from maskrcnn_benchmark.evaluation.build import build_evaluator
from maskrcnn_benchmark.utils.errors import DataError


def check_training_set(cfg: CfgNode, dataset: AnyDataset) -> None:
    """Raise DataError when no image can be trained on, saying why, and when image files are missing."""
    parts = dataset.parts if isinstance(dataset, ConcatDataset) else [dataset]
    if not len(dataset):
        reasons = "; ".join(_why_unusable(part) for part in parts)
        raise DataError(f"the training set has no usable image: {reasons}")
    for part in parts:
        records = [part.get_img_info(index) for index in range(len(part))]
        skip = cfg.DATALOADER.BAD_IMAGE == "skip"
        check_images(part.images, records, part.annotations.path, skip=skip)
        part.check_keypoints()


def check_test_sets(cfg: CfgNode, category_order: Sequence[int] | None = None) -> None:
    """Check all data sets of DATASETS.TEST as `check_test_set` does."""
    for name in cfg.DATASETS.TEST:
        spec = resolve_dataset(cfg, name)
        check_test_set(cfg, build_dataset(cfg, spec, train=False, category_order=category_order))


def check_test_set(cfg: CfgNode, dataset: DetectionDataset) -> None:
    """Raise what testing `dataset` would raise for its annotations (`check_truth`) and missing images."""
    annotations = dataset.annotations
    evaluator = build_evaluator(cfg, annotations.raw, dataset.label_to_category, kind=annotations.kind)
    try:
        if isinstance(evaluator, DetectionEvaluator):
            evaluator.check_truth()
    except DataError as error:
        where = annotations.path
        raise DataError(f"{where}: {error}" if where and where not in str(error) else str(error)) from None
    records = [dataset.get_img_info(index) for index in range(len(dataset))]
    check_images(dataset.images, records, annotations.path)


def _why_unusable(dataset: DetectionDataset) -> str:
    """Why no image of a data set can be trained on."""
    annotations = dataset.annotations
    columns, path = annotations.columns, annotations.path or "the annotations"
    if not len(columns):
        return f"{path} has no annotations"
    known = np.isin(columns.category_ids, dataset.label_to_category[1:])
    doubts = "".join(f"; {line}" for line in annotations.suspicions[:1])
    return (
        f"of the {len(columns)} annotations of {path}, {int((~known).sum())} are of other classes, "
        f"{int(columns.crowd.sum())} are crowds and {int(columns.degenerate().sum())} have a side of at most "
        f"one pixel; check its boxes and the class list{doubts}"
    )
