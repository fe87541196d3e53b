"""What one phase of the released workflow reads, checked to belong together (lst spec 9 and 11)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import resolve_dataset
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.coco import DetectionDataset
from maskrcnn_benchmark.incremental.distillation.json_files import box_order, check_complete, import_published
from maskrcnn_benchmark.incremental.distillation.lookup import DistillLookup
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, DistillStore
from maskrcnn_benchmark.incremental.pipeline.phase_config import check_stored_views, stored_size
from maskrcnn_benchmark.incremental.pipeline.phase_data import MakeBatches, base_batches, file_batches
from maskrcnn_benchmark.incremental.plan.phases import classes_hash
from maskrcnn_benchmark.incremental.plan.split import check_prefix
from maskrcnn_benchmark.utils.comm import on_main
from maskrcnn_benchmark.utils.errors import ConfigError, DataError
from maskrcnn_benchmark.utils.files import read_json

logger = logging.getLogger(__name__)
STORE_FOLDER = "distill"


def sorted_ids(cfg: CfgNode, count: int) -> list[int]:
    """The first `count` category ids of DATASETS.SORTED_IDS: those of the labels 1..count.

    Raises:
        ConfigError: when the key is empty. DataError: when the file is no list of as many different ids.
    """
    path = cfg.DATASETS.SORTED_IDS
    if not path:
        raise ConfigError(
            "MODEL.QRY_BALANCE, USE_DISTILL and GENERATE_DISTILL need DATASETS.SORTED_IDS, the list of "
            "category ids in the order of the labels (lvis_sorted_id_all.json; tools/lvis_split.py writes it)"
        )
    return check_prefix(read_json(path, what="DATASETS.SORTED_IDS"), count, path)


def category_order(cfg: CfgNode) -> list[int]:
    """Category ids of the phase by label: as many as MODEL.ROI_BOX_HEAD.NUM_CLASSES leaves room for."""
    return sorted_ids(cfg, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES - 1)


def train_annotations(cfg: CfgNode) -> AnnotationFile:
    """The annotation file of the one training set."""
    if len(cfg.DATASETS.TRAIN) != 1:
        raise ConfigError(
            f"a phase trains on its derived file alone; DATASETS.TRAIN names {len(cfg.DATASETS.TRAIN)} sets"
        )
    return AnnotationFile.load(resolve_dataset(cfg, cfg.DATASETS.TRAIN[0]).ann_file)


def train_dataset(
    cfg: CfgNode,
    order: Sequence[int],
    annotations: AnnotationFile | None = None,
    flip: int | None = None,
) -> DetectionDataset:
    """The training images of the phase, objects in (label, file) order; `flip`: a view to be stored.

    Raises:
        DataError: when the file has objects of categories that are not in `order`, or lacks one of these.
    """
    annotations = annotations or train_annotations(cfg)
    foreign = sorted(set(annotations.columns.category_ids.tolist()) - set(order))
    missing = sorted(set(order) - set(annotations.category_ids))
    if foreign or missing:
        what = (
            f"has objects of category {foreign[0]}, which is not among them"
            if foreign
            else f"has no category {missing[0]}"
        )
        raise DataError(
            f"the classes are the first {len(order)} ids of {cfg.DATASETS.SORTED_IDS}, but "
            f"{annotations.path} {what} ({len(foreign) + len(missing)} such ids); the annotation "
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
    """Pairs from the index files with MODEL.QRY_BALANCE, else ordinary batches."""
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
    """The stored outputs of MODEL.DISTILL_WEIGHTS_FILE; a published file becomes a store in OUTPUT_DIR.

    Raises:
        UsageError: when there is none, it is of other classes, or an entry is missing.
    """
    old, file = cfg.MODEL.NUM_DISTILL_CLASSES, cfg.MODEL.DISTILL_WEIGHTS_FILE
    if not file:
        raise ConfigError(
            "MODEL.USE_DISTILL needs MODEL.DISTILL_WEIGHTS_FILE, the published file or the folder of a store "
            "(MODEL.GENERATE_DISTILL or tools/dump_distillation.py make them)"
        )
    order = dataset.label_to_category[1:]
    if old >= len(order):
        raise ConfigError(
            f"MODEL.NUM_DISTILL_CLASSES is {old}, but this phase has {len(order)} classes in all: give "
            "the number of classes of the phase before"
        )
    boxes = box_order(dataset.annotations.outline, order, old)
    known = classes_hash(order[:old], dataset.class_names[1 : old + 1])
    folder = Path(file)
    if not folder.is_dir():
        folder = Path(cfg.OUTPUT_DIR) / STORE_FOLDER
        header = DistillHeader(cfg.LST.PHASE, old, known, "", stored_size(cfg), (0, 1), "float32")
        on_main(lambda: _import(file, folder, header, boxes))
    store = DistillStore(folder)
    check_stored_views(cfg, store.header.flips, f"flips in {folder}", "MODEL.USE_DISTILL")
    lookup = DistillLookup(store, old)
    if store.header.classes_hash != known:
        raise DataError(
            f"{folder} was stored for other classes than the first {old} of {cfg.DATASETS.SORTED_IDS}; use "
            "the sorted ids and annotations it was made with, or store the outputs again"
        )
    on_main(lambda: check_complete(store, boxes))
    return lookup


def _import(file: str, folder: Path, header: DistillHeader, boxes: dict[int, list[int]]) -> None:
    """Convert a published file; no result, so that nothing large travels between processes."""
    import_published(file, folder, header, boxes)
