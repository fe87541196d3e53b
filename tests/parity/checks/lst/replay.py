"""Checks of the balanced replay of LST: plan, published files, and the stream made on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from checks.checker import Checker
from checks.lst.data import annotation_file, read_plan
from checks.store import read_pair
from maskrcnn_benchmark.data.samplers.replay import ReplayPairSampler
from maskrcnn_benchmark.incremental.replay.index_files import published_order
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan, build_replay_plan


def check_replay(path: Path, checker: Checker) -> None:
    """Counts, epochs, both stored sequences, and our stream, for every step in `replay.json`."""
    info, arrays = read_pair(path)
    plan, data = read_plan(path.parent), annotation_file(path.parent, "train")
    world, samples = info["n_gpu"], info["n_iter"]
    with checker.section("replay"):
        for step, expected in info["steps"].items():
            replay = build_replay_plan(data["annotations"], plan, int(step))
            with checker.section(f"step{step}"):
                _check_plan(replay, expected, checker)
                seed = info["python_random_seed"] + int(step)
                for kind, shuffle in (("in_order", None), ("shuffled", seed)):
                    images, classes = published_order(replay, world, samples, shuffle)
                    checker.equal(f"{kind}_images", images, arrays[f"step{step}_{kind}_images"])
                    checker.equal(f"{kind}_classes", classes, arrays[f"step{step}_{kind}_classes"])
                stream = np.stack(published_order(replay, world, samples, None), axis=-1).reshape(-1, 2)
                _check_totals(replay, expected, stream[:, 1], checker)
                with checker.section("online"):
                    _check_online(replay, expected, stream, checker)


def _check_plan(replay: ReplayPlan, expected: dict[str, Any], checker: Checker) -> None:
    got = {
        "dataset_image_ids": replay.image_ids,
        "n_old_classes": replay.num_old,
        "n_new_classes": len(replay.instances) - replay.num_old,
        "new_pairs": len(replay.new_pairs),
        "new_pair_images": [image for image, _ in replay.new_pairs],
        "new_pair_classes": [label for _, label in replay.new_pairs],
        "instances_per_class": replay.instances,
        "images_per_class": replay.images,
        "avg_sample_num_raw": replay.raw_counts,
        "avg_sample_num": replay.counts,
        "epoch_length_formula": replay.epoch_length,
    }
    for name, value in got.items():
        checker.equal(name, value, expected[name])
    checker.close("mean_new_instances", replay.mean_new, expected["mean_new_instances"])


def _check_totals(replay: ReplayPlan, expected: dict[str, Any], labels: np.ndarray, checker: Checker) -> None:
    """Count whole epochs, the tail and every class in the labels as laid out."""
    length, size = replay.epoch_length, len(replay.instances) + 1
    checker.equal("total_iteration", len(labels), expected["total_iteration"])
    checker.equal("epochs", len(labels) // length, expected["epochs"])
    checker.equal("tail_fill", len(labels) % length, expected["tail_fill"])
    first = np.bincount(labels[:length], minlength=size)
    checker.equal("per_class_count_in_epoch0", first, expected["per_class_count_in_epoch0"])
    checker.equal(
        "per_class_count_total", np.bincount(labels, minlength=size), expected["per_class_count_total"]
    )


def _check_online(replay: ReplayPlan, expected: dict[str, Any], stream: np.ndarray, checker: Checker) -> None:
    """The sampler of training: the same stream in published order, and the same integers when it shuffles.

    Every epoch must hold all new pairs, and of every old class the next images of its cyclic list.
    """
    epochs, length = int(expected["epochs"]), replay.epoch_length

    def build(published_order: bool) -> ReplayPairSampler:
        return ReplayPairSampler(
            replay.counts,
            replay.image_lists,
            replay.new_pairs,
            seed=5,
            images_per_rank=1,
            num_iters=epochs * length,
            published_order=published_order,
        )

    published, sampler = build(True), build(False)
    got = [published.pair(position) for position in range(epochs * length)]
    checker.equal("published_order", np.array(got).reshape(-1, 2), stream[: epochs * length])
    checker.same("lists", [sorted(images) for images in sampler.image_lists], replay.image_lists)
    wrong = 0
    for epoch in range(epochs):
        pairs = [sampler.pair(epoch * length + offset) for offset in range(length)]
        pairs_of_epoch = list(replay.new_pairs)
        for label, (count, images) in enumerate(zip(replay.counts, sampler.image_lists, strict=True), 1):
            pairs_of_epoch += [(images[(epoch * count + i) % len(images)], label) for i in range(count)]
        wrong += sorted(pairs) != sorted(pairs_of_epoch)
    checker.equal("epochs_with_wrong_windows", wrong, 0)
