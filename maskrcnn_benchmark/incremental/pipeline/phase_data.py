"""Data of a phase: the two original annotation files behind a filter by class, and the training batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from maskrcnn_benchmark.data.build import build_train_loader, images_per_rank
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.data.samplers import FilePairSampler
from maskrcnn_benchmark.data.samplers.batches import PairBatches
from maskrcnn_benchmark.data.transforms import build_test_transforms, build_transforms
from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, check_validation_classes
from maskrcnn_benchmark.incremental.plan.split import derive_val_annotations
from maskrcnn_benchmark.incremental.replay.index_files import replay_sampler
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan
from maskrcnn_benchmark.structures.class_list import ClassList
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size
from maskrcnn_benchmark.utils.errors import DataError

MakeBatches = Callable[[int], Iterable[Batch]]


class PhaseData:
    """Annotation files of a run, each read once, and the data sets of each phase."""

    def __init__(self, cfg: CfgNode) -> None:
        for key in ("ANN_TRAIN", "ANN_VAL"):
            if not Path(cfg.LST[key]).is_file():
                raise DataError(f"LST.{key}: annotation file {cfg.LST[key]!r} does not exist")
        self.train_path = Path(cfg.LST.ANN_TRAIN)
        self.val_path = Path(cfg.LST.ANN_VAL)

    @cached_property
    def train(self) -> AnnotationFile:
        """The training annotations, all classes."""
        return AnnotationFile.load(self.train_path)

    @cached_property
    def val(self) -> AnnotationFile:
        """The validation annotations, all classes."""
        return AnnotationFile.load(self.val_path)

    def train_dataset(self, cfg: CfgNode, plan: PhasePlan, flip: int | None = None) -> DetectionDataset:
        """Training images with a valid object of the classes seen so far, objects in (label, file) order.

        Args:
            cfg: derived configuration of the phase.
            flip: None for training; 0 or 1 for the view whose teacher outputs are stored: never or always
                flipped, without colour jitter.
        """
        return DetectionDataset(
            self.train,
            cfg.LST.IMG_TRAIN,
            category_order=plan.seen_ids(cfg.LST.PHASE),
            transforms=build_transforms(cfg, train=True, flip_prob=None if flip is None else float(flip)),
            train=True,
            keep_images="valid",
            sort_by_label=True,
            seed=cfg.SEED,
            bad_image=cfg.DATALOADER.BAD_IMAGE,
            image_options=ImageOptions.from_cfg(cfg),
        )

    def val_dataset(self, cfg: CfgNode, plan: PhasePlan) -> DetectionDataset:
        """Validation images by rule LST.VAL_IMAGES with the objects and categories seen so far.

        Raises:
            DataError: when the validation file lacks a class of the training file.
        """
        if self.val.unlabelled:
            raise DataError(
                f'{self.val_path} has no "annotations": the phases are compared by AP; name a file with '
                "annotations in LST.ANN_VAL"
            )
        validation = ClassList.of_categories(self.val.categories, str(self.val_path))
        check_validation_classes(plan, self.train_path, validation)
        seen = derive_val_annotations(self.val.raw, plan, cfg.LST.PHASE, cfg.LST.VAL_IMAGES)
        return DetectionDataset(
            AnnotationFile(seen, path=str(self.val_path)),
            cfg.LST.IMG_VAL,
            category_order=plan.seen_ids(cfg.LST.PHASE),
            transforms=build_test_transforms(cfg),
            train=False,
            keep_images="all",
            seed=cfg.SEED,
            bad_image="error",
            image_options=ImageOptions.from_cfg(cfg),
        )


def base_batches(cfg: CfgNode, dataset: DetectionDataset) -> MakeBatches:
    """Batches of ordinary training, from a given number of consumed batches on."""
    total = cfg.SOLVER.MAX_ITER * cfg.SOLVER.ACCUMULATION_STEPS
    return lambda done: build_train_loader(cfg, dataset, start_iter=done, num_iters=total - done)


def replay_batches(cfg: CfgNode, dataset: DetectionDataset, plan: ReplayPlan) -> MakeBatches:
    """Batches of a step: each image comes with the class it was sampled for.

    Raises:
        DataError: when the plan was made for other images than the data set holds; in mode "file", when the
            published files are for another data set, or their lists cannot share a batch.
        ConfigError: when the ranks cannot share a batch.
    """
    if list(dataset.image_ids) != plan.image_ids:
        raise DataError(
            f"the replay plan of phase {plan.phase} lists {len(plan.image_ids)} images, the data set has "
            f"{len(dataset.image_ids)} other ones; delete the phase's folder to plan again"
        )
    if cfg.LST.REPLAY.MODE == "file":
        return file_batches(cfg, dataset, cfg.LST.REPLAY.FILE_IMAGES, cfg.LST.REPLAY.FILE_CLASSES)
    return _pair_batches(cfg, dataset, lambda **rank: replay_sampler(plan, cfg.LST.SEED, **rank))


def file_batches(cfg: CfgNode, dataset: DetectionDataset, images_file: str, classes_file: str) -> MakeBatches:
    """Batches of a step in the order of the two published files.

    Raises:
        DataError: when the files are for another data set, class order or number of ranks.
        ConfigError: when the ranks cannot share a batch.
    """

    def sampler(**rank: int) -> FilePairSampler:
        return FilePairSampler(
            images_file,
            classes_file,
            num_images=len(dataset),
            num_classes=len(dataset.class_names),
            **rank,
        )

    per_rank = images_per_rank(cfg.SOLVER.IMS_PER_BATCH, "SOLVER.IMS_PER_BATCH")
    check_pair_files(
        sampler(images_per_rank=per_rank, num_iters=0, world=get_world_size(), rank=get_rank()),
        dataset,
        classes_file,
    )
    return _pair_batches(cfg, dataset, sampler)


def check_pair_files(sampler: FilePairSampler, dataset: DetectionDataset, where: str) -> None:
    """Raise DataError naming file `where` unless the image of each pair has a valid object of its class."""
    labels = len(dataset.class_names)
    known = [i * labels + label for i in range(len(dataset)) for label in dataset.get_labels(i)]
    for row, (images, classes) in enumerate(zip(sampler.images, sampler.classes, strict=True)):
        wrong = np.flatnonzero(~np.isin(np.array(images) * labels + np.array(classes), known))
        if len(wrong):
            label, index = classes[wrong[0]], images[wrong[0]]
            raise DataError(
                f"{where}: entry {wrong[0]} of list {row} samples class {label} "
                f"({dataset.class_names[label]}) from image index {index} "
                f"(id {dataset.image_ids[index]}), which has none; {len(wrong)} of "
                f"{len(images)} entries are wrong: index files, annotation file and class order must be of "
                "one split (tools/replay_indices.py writes the index files)"
            )


def _pair_batches(
    cfg: CfgNode, dataset: DetectionDataset, sampler: Callable[..., PairBatches]
) -> MakeBatches:
    """Batches of a sampler that is built for this rank and a first iteration."""
    per_rank = images_per_rank(cfg.SOLVER.IMS_PER_BATCH, "SOLVER.IMS_PER_BATCH")
    total = cfg.SOLVER.MAX_ITER * cfg.SOLVER.ACCUMULATION_STEPS

    def make(done: int) -> Iterable[Batch]:
        batches = sampler(
            images_per_rank=per_rank,
            num_iters=total - done,
            world=get_world_size(),
            rank=get_rank(),
            start_iter=done,
        )
        return build_train_loader(cfg, dataset, batches=batches, start_iter=done, num_iters=total - done)

    return make
