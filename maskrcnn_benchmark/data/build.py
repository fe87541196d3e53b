"""Building of data sets and loaders from a config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch

from maskrcnn_benchmark.config.catalog import DatasetSpec, resolve_dataset
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DIFFERENT, ConcatDataset, DetectionDataset
from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.data.loader import Loader
from maskrcnn_benchmark.data.samplers import (
    ClassAwareStream,
    GroupedBatchSampler,
    PositionBatches,
    PositionStream,
    RepeatFactorStream,
    ShuffledStream,
    StreamBatches,
    aspect_groups,
    repeat_factors,
)
from maskrcnn_benchmark.data.transforms import build_test_transforms, build_transforms
from maskrcnn_benchmark.data.transforms.views import view_specs
from maskrcnn_benchmark.data.types import SampleKey, collate
from maskrcnn_benchmark.structures.class_list import ClassList, map_classes
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.rng import generator

AnyDataset = DetectionDataset | ConcatDataset


def build_dataset(
    cfg: Any,
    spec: DatasetSpec,
    *,
    train: bool,
    category_order: Sequence[int] | None = None,
    keep_images: str | None = None,
    sort_by_label: bool = False,
    flip_prob: float | None = None,
    annotations: AnnotationFile | None = None,
) -> DetectionDataset:
    """Build the data set `spec` with the transforms of `cfg`.

    keep_images: "valid" or "all"; None takes "valid" for training and "all" for testing. flip_prob: see
    build_transforms. annotations: used instead of reading `spec.ann_file` (derived files in memory).
    Raises DataError for a file that is missing or wrong.
    """
    return DetectionDataset(
        annotations if annotations is not None else load_annotations(spec),
        spec.img_dir,
        transforms=build_transforms(cfg, train, flip_prob) if train else build_test_transforms(cfg),
        train=train,
        category_order=category_order,
        keep_images=keep_images or ("valid" if train else "all"),
        sort_by_label=sort_by_label,
        seed=cfg.SEED,
        bad_image=cfg.DATALOADER.BAD_IMAGE,
        min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else None,
        image_options=ImageOptions.from_cfg(cfg),
    )


def build_train_dataset(cfg: Any, category_order: Sequence[int] | None = None) -> AnyDataset:
    """Build the data sets of DATASETS.TRAIN, joined in order.

    category_order: category ids of the first by label, perhaps some of them; None takes its order. Raises
    ConfigError when there is none, DataError where their classes differ (see `structures.class_list`).
    """
    if not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN is empty; name at least one data set to train on")
    specs = [resolve_dataset(cfg, name) for name in cfg.DATASETS.TRAIN]
    first = build_dataset(cfg, specs[0], train=True, category_order=category_order)
    parts = [first]
    for spec in specs[1:]:
        annotations = load_annotations(spec)
        order = map_classes(
            first.class_list,
            ClassList.of_categories(annotations.categories, annotations.path),
            subset=len(first.class_list) < len(first.annotations.categories),
            problem=DIFFERENT,
        )
        parts.append(build_dataset(cfg, spec, train=True, category_order=order, annotations=annotations))
    return first if len(parts) == 1 else ConcatDataset(parts)


def images_per_rank(total: int, key: str) -> int:
    """Number of images per rank of a batch of `total`; ConfigError naming `key` if it is no whole number."""
    world = get_world_size()
    if total < 1 or total % world:
        raise ConfigError(
            f"{key} is {total}; it must be a positive multiple of the {world} ranks of this run"
        )
    return total // world


def build_train_loader(
    cfg: Any,
    dataset: AnyDataset,
    *,
    start_iter: int = 0,
    num_iters: int | None = None,
    batches: Iterable[list[SampleKey]] | None = None,
) -> Loader:
    """Build the loader of this rank's Batch objects, one per iteration from `start_iter`.

    batches: lists of keys of this rank that begin at `start_iter`; None takes the stream of
    DATALOADER.SAMPLER, the shuffled one grouped by aspect ratio if configured. num_iters: None runs to
    SOLVER.MAX_ITER. The batch of an iteration, all ranks together, does not depend on `start_iter`, the
    number of ranks or that of workers.
    """
    if batches is None:
        remaining = max(0, cfg.SOLVER.MAX_ITER - start_iter) if num_iters is None else num_iters
        batches = _stream_batches(cfg, dataset, start_iter, remaining)
    return _loader(cfg, dataset, batches)


def sampler_name(cfg: Any) -> str:
    """Name of the sampler: DATALOADER.SAMPLER, or class-aware with the published SOLVER.USE_CAS."""
    return "class_aware" if cfg.SOLVER.USE_CAS else cfg.DATALOADER.SAMPLER


def _stream_batches(
    cfg: Any, dataset: AnyDataset, start_iter: int, num_iters: int
) -> Iterable[list[SampleKey]]:
    """This rank's batches of the stream that the config names."""
    world = get_world_size()
    per_rank = images_per_rank(cfg.SOLVER.IMS_PER_BATCH, "SOLVER.IMS_PER_BATCH")
    layout = {"start_iter": start_iter, "num_iters": num_iters, "world": world, "rank": get_rank()}
    name = sampler_name(cfg)
    if name == "shuffle":
        groups = _groups(dataset) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
        return StreamBatches(ShuffledStream(len(dataset), cfg.SEED, per_rank * world, groups), **layout)
    labels = [dataset.get_labels(index) for index in range(len(dataset))]
    stream: PositionStream
    if name == "class_aware":
        lists: list[list[int]] = [[] for _ in dataset.class_names]
        for index, classes in enumerate(labels):
            for label in set(classes):
                lists[label].append(index)
        stream = ClassAwareStream(lists, cfg.SEED)
    else:
        stream = RepeatFactorStream(repeat_factors(labels, cfg.DATALOADER.REPEAT_THRESHOLD), cfg.SEED)
    return PositionBatches(stream, images_per_rank=per_rank, **layout)


def build_test_loader(cfg: Any, dataset: AnyDataset) -> Loader:
    """Build the loader of this rank's part of a data set, every image once.

    The images of a batch have one size, so that padding, and with it the predictions, depends neither on
    the batch size nor on the number of ranks. A rank may get no image at all.
    """
    world, rank = get_world_size(), get_rank()
    size = max(1, cfg.TEST.IMS_PER_BATCH // world)
    sizes = _padded_test_sizes(cfg, dataset)
    batches = GroupedBatchSampler(range(rank, len(dataset), world), sizes, size).batches()
    return _loader(cfg, dataset, [[SampleKey(index) for index in batch] for batch in batches])


def _loader(cfg: Any, dataset: AnyDataset, batches: Iterable[list[SampleKey]]) -> Loader:
    """Build the loader of one Batch per list of keys, with DATALOADER.NUM_WORKERS workers."""
    return Loader(
        dataset,
        collate=partial(collate, size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY),
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=torch.cuda.is_available() and cfg.MODEL.DEVICE != "cpu",
        # not the default generator, which training seeds: making an iterator would advance it
        generator=generator(cfg.SEED, "loader"),
    )


def _groups(dataset: AnyDataset) -> list[int]:
    """Aspect-ratio group of every image, from the records."""
    records = (dataset.get_img_info(index) for index in range(len(dataset)))
    return aspect_groups(record["height"] / record["width"] for record in records)


def _padded_test_sizes(cfg: Any, dataset: AnyDataset) -> list[int]:
    """Group of every image, equal for images that testing pads to the same size, from the records.

    With test-time augmentation: to the same size in every view.
    """
    step = max(1, cfg.DATALOADER.SIZE_DIVISIBILITY)
    specs = view_specs(cfg) if cfg.TEST.BBOX_AUG.ENABLED else view_specs(cfg)[:1]
    group_of: dict[tuple[int, ...], int] = {}
    groups = []
    for index in range(len(dataset)):
        record = dataset.get_img_info(index)
        sizes = [spec.rule.largest(record["width"], record["height"]) for spec in specs]
        padded = tuple(-(-side // step) for size in sizes for side in size)
        groups.append(group_of.setdefault(padded, len(group_of)))
    return groups
