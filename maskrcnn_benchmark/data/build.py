"""Data sets and loaders from a config."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from maskrcnn_benchmark.config.catalog import DatasetSpec, resolve_dataset
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.coco import DetectionDataset
from maskrcnn_benchmark.data.datasets.concat import ConcatDataset
from maskrcnn_benchmark.data.datasets.readers import load_annotations
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
    """The data set `spec` with the transforms of `cfg`.

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
    )


def build_train_dataset(cfg: Any, category_order: Sequence[int] | None = None) -> AnyDataset:
    """The data sets of DATASETS.TRAIN, joined in order; ConfigError when there is none."""
    if not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN is empty; name at least one data set to train on")
    specs = [resolve_dataset(cfg, name) for name in cfg.DATASETS.TRAIN]
    parts = [build_dataset(cfg, spec, train=True, category_order=category_order) for spec in specs]
    return parts[0] if len(parts) == 1 else ConcatDataset(parts)


def images_per_rank(total: int, key: str) -> int:
    """Images per process of a batch of `total`; ConfigError naming `key` if the split is uneven."""
    world = get_world_size()
    if total < 1 or total % world:
        raise ConfigError(
            f"{key} is {total}; it must be a positive multiple of the {world} processes of this run"
        )
    return total // world


def build_train_loader(
    cfg: Any,
    dataset: AnyDataset,
    *,
    start_iter: int = 0,
    num_iters: int | None = None,
    batches: Iterable[list[SampleKey]] | None = None,
) -> DataLoader:
    """Loader of Batch objects, one per iteration from `start_iter`, for this process.

    Without `batches` (lists of keys of this process, already starting at `start_iter`) the stream named by
    DATALOADER.SAMPLER is used; the shuffled one is grouped by aspect ratio if configured. num_iters: default
    to SOLVER.MAX_ITER. The batch of an iteration, all processes together, does not depend on `start_iter`, on
    the number of processes or on that of workers.
    """
    if batches is None:
        left = max(0, cfg.SOLVER.MAX_ITER - start_iter) if num_iters is None else num_iters
        batches = _stream_batches(cfg, dataset, start_iter, left)
    return _loader(cfg, dataset, batches)


def sampler_name(cfg: Any) -> str:
    """The sampler of ordinary training: DATALOADER.SAMPLER, or what the published SOLVER.USE_CAS asks for."""
    return "class_aware" if cfg.SOLVER.USE_CAS else cfg.DATALOADER.SAMPLER


def _stream_batches(
    cfg: Any, dataset: AnyDataset, start_iter: int, num_iters: int
) -> Iterable[list[SampleKey]]:
    """This process's batches of the stream that the config names."""
    world = get_world_size()
    per_rank = images_per_rank(cfg.SOLVER.IMS_PER_BATCH, "SOLVER.IMS_PER_BATCH")
    place = {"start_iter": start_iter, "num_iters": num_iters, "world": world, "rank": get_rank()}
    name = sampler_name(cfg)
    if name == "shuffle":
        groups = _groups(dataset) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
        return StreamBatches(ShuffledStream(len(dataset), cfg.SEED, per_rank * world, groups), **place)
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
    return PositionBatches(stream, images_per_rank=per_rank, **place)


def build_test_loader(cfg: Any, dataset: AnyDataset) -> DataLoader:
    """Loader of Batch objects over this process's share of the data set, every image once.

    The images of a batch have one size, so that padding, and with it the predictions, depends neither on
    the batch size nor on the number of processes. A process may get no image at all.
    """
    world, rank = get_world_size(), get_rank()
    size = max(1, cfg.TEST.IMS_PER_BATCH // world)
    sizes = _padded_test_sizes(cfg, dataset)
    batches = GroupedBatchSampler(range(rank, len(dataset), world), sizes, size).batches()
    return _loader(cfg, dataset, [[SampleKey(index) for index in batch] for batch in batches])


def _loader(cfg: Any, dataset: AnyDataset, batches: Iterable[list[SampleKey]]) -> DataLoader:
    """A DataLoader that gives one Batch per list of keys, with the workers of DATALOADER.NUM_WORKERS."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=partial(collate, size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY),
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available() and cfg.MODEL.DEVICE != "cpu",
        # a generator of its own: making an iterator must not move the default one that training seeds
        generator=generator(cfg.SEED, "loader"),
    )


def _groups(dataset: AnyDataset) -> list[int]:
    """Aspect-ratio group of every image, from the records."""
    records = (dataset.get_img_info(index) for index in range(len(dataset)))
    return aspect_groups(record["height"] / record["width"] for record in records)


def _padded_test_sizes(cfg: Any, dataset: AnyDataset) -> list[int]:
    """A number for every image, equal for images that testing pads to the same size, from the records.

    With test-time augmentation: to the same size in every view.
    """
    step = max(1, cfg.DATALOADER.SIZE_DIVISIBILITY)
    specs = view_specs(cfg) if cfg.TEST.BBOX_AUG.ENABLED else view_specs(cfg)[:1]
    numbers: dict[tuple[int, ...], int] = {}
    found = []
    for index in range(len(dataset)):
        record = dataset.get_img_info(index)
        sizes = [spec.rule.largest(record["width"], record["height"]) for spec in specs]
        padded = tuple(-(-side // step) for size in sizes for side in size)
        found.append(numbers.setdefault(padded, len(numbers)))
    return found


def _start_worker(worker: int) -> None:
    """Workers share the cores: one thread each. They end with the process that started them."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the parent is gone: torch's own watch never notices one killed while its workers start."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
