"""Balanced replay: which (image, class) pairs of old classes an epoch of a step holds beside the new ones.

An old class is replayed in so many images that it contributes about as many instances as a new class (LST,
Hu et al. 2020, arXiv 2004.00900).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.split import valid_pairs
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json

Pair = tuple[int, int]


def sample_counts(
    instances: Sequence[int], images: Sequence[int], num_old: int, minimum: int = 1
) -> tuple[float, list[float], list[int]]:
    """Number of images of each old class that an epoch replays.

    Args:
        instances, images: annotations and images of the valid pairs of every class, in label order; the first
            `num_old` classes are old.
        minimum: lower bound of a count. A class without any image gets 0.

    Returns:
        (mean instances of a new class, raw counts, final counts): raw = mean / (instances per image of the
        old class), rounded half to even, so that an old class contributes about as many instances as a new
        one.
    """
    new = list(instances[num_old:])
    mean = float(np.mean(new)) if new else 0.0
    raw: list[float] = []
    final: list[int] = []
    for n_instances, n_images in zip(instances[:num_old], images[:num_old], strict=True):
        per_image = n_instances / n_images if n_images else 0.0
        raw.append(float(np.round(mean / per_image)) if per_image else 0.0)
        final.append(max(minimum, int(raw[-1])) if n_images else 0)
    return mean, raw, final


def epoch_length(plan: PhasePlan, phase: int, minimum: int = 1, replay: bool = True) -> int:
    """Number of samples in an epoch of a step: its new pairs and, with `replay`, the replayed ones."""
    seen, old = plan.classes[: plan.num_seen(phase)], plan.num_old(phase)
    new_pairs = sum(c.train_images for c in seen[old:])
    if not replay:
        return new_pairs
    _, _, counts = sample_counts(
        [c.train_instances for c in seen], [c.train_images for c in seen], old, minimum
    )
    return new_pairs + sum(counts)


@dataclass(frozen=True)
class ReplayPlan:
    """Pairs that one step trains on. Images are indices into `image_ids` (ascending).

    Attributes:
        image_ids: the data set of the step: images with a valid annotation of any class seen so far.
        instances, images: counts per class seen so far, in label order, over valid pairs.
        mean_new: mean number of instances of the new classes.
        raw_counts, counts: images per epoch of each old class, before and after rounding and the minimum.
        image_lists: images of each old class, ascending.
        new_pairs: (image, label) of each new pair.
    """

    phase: int
    image_ids: list[int]
    instances: list[int]
    images: list[int]
    mean_new: float
    raw_counts: list[float]
    counts: list[int]
    image_lists: list[list[int]]
    new_pairs: list[Pair]

    @property
    def num_old(self) -> int:
        """Number of old classes."""
        return len(self.counts)

    @property
    def epoch_length(self) -> int:
        """Number of samples in an epoch."""
        return len(self.new_pairs) + sum(self.counts)

    def to_json(self) -> dict[str, Any]:
        """Content of replay.json; the epoch length is redundant, for readers of the file."""
        return asdict(self) | {"epoch_length": self.epoch_length}

    @staticmethod
    def from_json(data: dict[str, Any]) -> ReplayPlan:
        """Inverse of `to_json`."""
        fields = {name: data[name] for name in ReplayPlan.__dataclass_fields__}
        return ReplayPlan(**fields | {"new_pairs": [(image, label) for image, label in data["new_pairs"]]})


def read_replay_plan(path: str | Path) -> ReplayPlan:
    """Read a replay.json; DataError naming the file when it is missing, damaged or holds no plan."""
    content = read_json(path, what="replay plan")
    try:
        plan = ReplayPlan.from_json(content)
        images = [index for indices in plan.image_lists for index in indices] + [i for i, _ in plan.new_pairs]
        fits = len(plan.counts) == len(plan.image_lists) <= len(plan.images) == len(plan.instances)
        fits = fits and all(0 <= index < len(plan.image_ids) for index in images)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise DataError(f"{path} holds no replay plan; move it away and give the same command again")
    return plan


def build_replay_plan(
    annotations: Sequence[dict[str, Any]],
    plan: PhasePlan,
    phase: int,
    *,
    minimum: int = 1,
    replay: bool = True,
) -> ReplayPlan:
    """Build the replay plan of step `phase` from training annotations (any superset of its classes).

    Without `replay` the old classes get no samples: the step trains on its new pairs alone.

    Raises:
        DataError: when the step has no valid training annotation of a new class.
    """
    pairs_of = valid_pairs(annotations)
    pairs = [pairs_of.get(category, {}) for category in plan.seen_ids(phase)]
    image_ids = sorted({image for images in pairs for image in images})
    index = {image: i for i, image in enumerate(image_ids)}
    lists = [sorted(index[image] for image in images) for images in pairs]
    old = plan.num_old(phase)
    instances, images = [sum(p.values()) for p in pairs], [len(p) for p in pairs]
    mean, raw, counts = sample_counts(instances, images, old, minimum)
    new_pairs = [(image, label) for label in plan.new_labels(phase) for image in lists[label - 1]]
    if not new_pairs:
        names = ", ".join(c.name for c in plan.classes[old : old + 3])
        raise DataError(
            f"phase {phase}: no training image has a usable annotation of its classes ({names}, ...); "
            "give the training file of this or a later phase, or other phase sizes"
        )
    return ReplayPlan(
        phase=phase,
        image_ids=image_ids,
        instances=instances,
        images=images,
        mean_new=mean,
        raw_counts=raw,
        counts=counts if replay else [0] * old,
        image_lists=lists[:old],
        new_pairs=new_pairs,
    )
