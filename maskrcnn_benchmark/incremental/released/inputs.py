"""Inputs of one phase of the released workflow, checked to belong together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import resolve_dataset
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.incremental.distillation.json_files import (
    check_store_complete,
    import_logits,
    new_box_ids,
)
from maskrcnn_benchmark.incremental.distillation.lookup import DistillLookup
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, DistillStore
from maskrcnn_benchmark.incremental.distillation.views import check_stored_views, stored_size
from maskrcnn_benchmark.incremental.pipeline.phase_data import MakeBatches, base_batches, file_batches
from maskrcnn_benchmark.incremental.plan.phases import classes_hash
from maskrcnn_benchmark.incremental.plan.run_folder import STORE_FOLDER
from maskrcnn_benchmark.incremental.plan.split import leading_category_ids
from maskrcnn_benchmark.utils.comm import on_main
from maskrcnn_benchmark.utils.errors import ConfigError, DataError
from maskrcnn_benchmark.utils.files import read_json

logger = logging.getLogger(__name__)


def sorted_ids(cfg: CfgNode, count: int) -> list[int]:
    """First `count` category ids of DATASETS.SORTED_IDS, those of the labels 1..count.

    Raises:
        ConfigError: when the key is empty. DataError: when the file does not list that many different ids.
    """
    path = cfg.DATASETS.SORTED_IDS
    if not path:
        raise ConfigError(
            "MODEL.QRY_BALANCE, USE_DISTILL and GENERATE_DISTILL need DATASETS.SORTED_IDS, the list of "
            "category ids in the order of the labels (lvis_sorted_id_all.json; tools/lvis_split.py writes it)"
        )
    return leading_category_ids(read_json(path, what="DATASETS.SORTED_IDS"), count, path)


def category_order(cfg: CfgNode) -> list[int]:
    """Category ids of the phase by label, MODEL.ROI_BOX_HEAD.NUM_CLASSES - 1 of them."""
    return sorted_ids(cfg, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES - 1)


def train_annotations(cfg: CfgNode) -> AnnotationFile:
    """Load the annotation file of the only training set; ConfigError when there are several."""
    if len(cfg.DATASETS.TRAIN) != 1:
        raise ConfigError(
            f"DATASETS.TRAIN names {len(cfg.DATASETS.TRAIN)} data sets, but a phase trains on one; name "
            "the training file of the phase only"
        )
    return AnnotationFile.load(resolve_dataset(cfg, cfg.DATASETS.TRAIN[0]).ann_file)


def train_dataset(
    cfg: CfgNode,
    order: Sequence[int],
    annotations: AnnotationFile | None = None,
    flip: int | None = None,
) -> DetectionDataset:
    """Training images of the phase, objects in (label, file) order.

    `flip`: see `PhaseData.train_dataset`.

    Raises:
        DataError: when the file has objects of categories that are not in `order`, or lacks one of these.
    """
    annotations = annotations or train_annotations(cfg)
    unknown = sorted(set(annotations.columns.category_ids.tolist()) - set(order))
    missing = sorted(set(order) - set(annotations.category_ids))
    if unknown or missing:
        what = (
            f"has objects of category {unknown[0]}, which is not among them"
            if unknown
            else f"has no category {missing[0]}"
        )
        raise DataError(
            f"the classes are the first {len(order)} ids of {cfg.DATASETS.SORTED_IDS}, but "
            f"{annotations.path} {what} ({len(unknown) + len(missing)} such ids); the annotation "
            "file, DATASETS.SORTED_IDS and MODEL.ROI_BOX_HEAD.NUM_CLASSES must be of one phase of one split"
        )
    return build_dataset(
        cfg,
        resolve_dataset(cfg, cfg.DATASETS.TRAIN[0]),
        train=True,
        category_order=order,
        sort_by_label=True,
        flip_prob=None if flip is None else float(flip),
        annotations=annotations,
    )


def train_batches(cfg: CfgNode, dataset: DetectionDataset) -> MakeBatches:
    """Batches of pairs from the index files with MODEL.QRY_BALANCE, else ordinary batches."""
    if not cfg.MODEL.QRY_BALANCE:
        return base_batches(cfg, dataset)
    classes, images = cfg.MODEL.QRY_INDICE_CLS, cfg.MODEL.QRY_INDICE_IMG
    if not classes:
        raise ConfigError(
            "MODEL.QRY_BALANCE needs the index files MODEL.QRY_INDICE_CLS and QRY_INDICE_IMG "
            "(tools/replay_indices.py writes them), or LST.ENABLED, which plans by itself"
        )
    if not images:
        name = Path(classes).name
        if "classes" not in name:
            raise ConfigError(f"MODEL.QRY_INDICE_CLS is {classes}: name its image indices in QRY_INDICE_IMG")
        images = str(Path(classes).with_name(name.replace("classes", "indices", 1)))
        logger.info("MODEL.QRY_INDICE_IMG is empty: image indices are read from %s", images)
    return file_batches(cfg, dataset, images, classes)


def open_lookup(cfg: CfgNode, dataset: DetectionDataset) -> DistillLookup:
    """Open the stored outputs of MODEL.DISTILL_WEIGHTS_FILE; a released file becomes a store in OUTPUT_DIR.

    Raises:
        UsageError: when there is none, it belongs to other classes, or an entry is missing.
    """
    num_old, file = cfg.MODEL.NUM_DISTILL_CLASSES, cfg.MODEL.DISTILL_WEIGHTS_FILE
    if not file:
        raise ConfigError(
            "MODEL.USE_DISTILL needs MODEL.DISTILL_WEIGHTS_FILE, the published file or the folder of a store "
            "(MODEL.GENERATE_DISTILL or tools/dump_distillation.py make them)"
        )
    order = dataset.label_to_category[1:]
    if num_old >= len(order):
        raise ConfigError(
            f"MODEL.NUM_DISTILL_CLASSES is {num_old}, but this phase has {len(order)} classes in all: give "
            "the number of classes of the phase before"
        )
    boxes = new_box_ids(dataset.annotations.outline, order, num_old)
    known = classes_hash(order[:num_old], dataset.class_names[1 : num_old + 1])
    folder = Path(file)
    if not folder.is_dir():
        folder = Path(cfg.OUTPUT_DIR) / STORE_FOLDER
        header = DistillHeader(cfg.LST.PHASE, num_old, known, "", stored_size(cfg), (0, 1), "float32")
        on_main(lambda: _import_store(file, folder, header, boxes))
    store = DistillStore(folder)
    check_stored_views(cfg, store.header.flips, f"flips in {folder}", "MODEL.USE_DISTILL")
    lookup = DistillLookup(store, num_old)
    if store.header.classes_hash != known:
        raise DataError(
            f"{folder} was stored for other classes than the first {num_old} of {cfg.DATASETS.SORTED_IDS}; "
            "use the sorted ids and annotations it was made with, or store the outputs again"
        )
    on_main(lambda: check_store_complete(store, boxes))
    return lookup


def _import_store(file: str, folder: Path, header: DistillHeader, boxes: dict[int, list[int]]) -> None:
    """Convert a released file; returns nothing, so that nothing large is sent between ranks."""
    import_logits(file, folder, header, boxes)
