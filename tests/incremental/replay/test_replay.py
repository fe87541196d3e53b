"""Balanced replay: reference numbers, the published files, real-scale epoch lengths."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan, phase_sizes
from maskrcnn_benchmark.incremental.replay.index_files import (
    export_index_files,
    published_order,
    read_index_files,
)
from maskrcnn_benchmark.incremental.replay.plan import (
    ReplayPlan,
    build_replay_plan,
    epoch_length,
    sample_counts,
)
from maskrcnn_benchmark.utils.errors import DataError


def plan_of(golden: dict[str, Any], mini_plan: PhasePlan, step: int, **options: Any) -> ReplayPlan:
    """The replay plan of a step of the reference data set."""
    return build_replay_plan(golden["lvis_mini_train"]["annotations"], mini_plan, step, **options)


@pytest.mark.parametrize("step", [1, 2])
def test_numbers_equal_the_reference(golden: dict[str, Any], mini_plan: PhasePlan, step: int) -> None:
    expected, plan = golden["replay"]["steps"][str(step)], plan_of(golden, mini_plan, step)
    assert plan.image_ids == expected["dataset_image_ids"]
    assert plan.instances == expected["instances_per_class"]
    assert plan.images == expected["images_per_class"]
    assert plan.mean_new == expected["mean_new_instances"]
    assert plan.raw_counts == expected["avg_sample_num_raw"]
    assert plan.counts == expected["avg_sample_num"]
    assert [list(p) for p in plan.new_pairs] == [
        list(p) for p in zip(expected["new_pair_images"], expected["new_pair_classes"], strict=True)
    ]
    assert plan.epoch_length == expected["epoch_length_formula"] == epoch_length(mini_plan, step)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("mode", ["in_order", "shuffled"])
def test_layout_equals_the_reference(
    golden: dict[str, Any], golden_lst: Path, mini_plan: PhasePlan, step: int, mode: str
) -> None:
    reference = np.load(golden_lst / "replay.npz")
    info, numbers = golden["replay"], golden["replay"]["steps"][str(step)]
    seed = info["python_random_seed"] + step if mode == "shuffled" else None
    images, classes = published_order(plan_of(golden, mini_plan, step), info["n_gpu"], info["n_iter"], seed)
    np.testing.assert_array_equal(images, reference[f"step{step}_{mode}_images"])
    np.testing.assert_array_equal(classes, reference[f"step{step}_{mode}_classes"])
    totals = Counter(classes.reshape(-1).tolist())
    assert [totals.get(i, 0) for i in range(len(numbers["per_class_count_total"]))] == numbers[
        "per_class_count_total"
    ]


def test_layout_shorter_than_an_epoch(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    plan = plan_of(golden, mini_plan, 1)
    images, classes = published_order(plan, 1, 5, None)
    assert list(zip(images[0].tolist(), classes[0].tolist(), strict=True)) == plan.new_pairs[:5]


def test_without_replay_only_new_pairs_are_left(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    plan = plan_of(golden, mini_plan, 2, replay=False)
    assert plan.counts == [0] * 11
    assert plan.epoch_length == len(plan.new_pairs) == epoch_length(mini_plan, 2, replay=False) == 8
    assert set(published_order(plan, 1, 16, None)[1].reshape(-1).tolist()) == {12, 13, 14, 15, 16}


def test_plan_json_round_trip(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    plan = plan_of(golden, mini_plan, 2)
    assert ReplayPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_step_without_usable_images(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    base = set(mini_plan.seen_ids(0))
    annotations = [a for a in golden["lvis_mini_train"]["annotations"] if a["category_id"] in base]
    with pytest.raises(DataError, match="phase 1: no training image"):
        build_replay_plan(annotations, mini_plan, 1)


def test_count_rounds_half_to_even_and_has_a_minimum() -> None:
    # one instance per image, mean 2.5 and 3.5 of the new classes
    assert sample_counts([4, 2, 3], [4, 2, 2], 1)[1:] == ([2.0], [2])
    assert sample_counts([4, 3, 4], [4, 2, 2], 1)[1:] == ([4.0], [4])
    assert sample_counts([100, 1], [1, 1], 1)[1:] == ([0.0], [1])
    assert sample_counts([100, 1], [1, 1], 1, minimum=0)[2] == [0]
    assert sample_counts([0, 1], [0, 1], 1)[2] == [0]  # a class without images cannot be replayed


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=2, max_size=8),
    st.integers(0, 8),
)
def test_old_classes_approach_the_mean(pairs: list[tuple[int, int]], old: int) -> None:
    old = min(old, len(pairs) - 1)
    instances = [images * per for images, per in pairs]
    images = [i for i, _ in pairs]
    mean, _, counts = sample_counts(instances, images, old)
    for (_, per_image), count in zip(pairs[:old], counts, strict=True):
        assert count >= 1
        assert count == 1 or abs(count * per_image - mean) <= per_image / 2 + 1e-9


def test_published_files_round_trip(golden: dict[str, Any], mini_plan: PhasePlan, tmp_path: Path) -> None:
    plan = plan_of(golden, mini_plan, 1)
    paths = export_index_files(plan, tmp_path, world=4, samples_per_rank=30, shuffle_seed=3)
    assert [p.name for p in paths] == [
        "lvis_indices_qry_step1_rand_balanced.json",
        "lvis_classes_qry_step1_rand_balanced.json",
    ]
    images, classes = read_index_files(*paths, num_images=len(plan.image_ids), num_classes=11)
    expected = published_order(plan, 4, 30, 3)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(classes, expected[1])
    with pytest.raises(DataError, match="another step or data set"):
        read_index_files(*paths, num_images=5, num_classes=11)
    with pytest.raises(DataError, match="values"):
        read_index_files(*paths, num_images=len(plan.image_ids), num_classes=6)
    for text in ('[[1, "a"]]', "[[1, null]]", "[[1, 1.5]]", "[[[1], [2]]]", f"[[1, {10**30}]]"):
        paths[1].write_text(text)
        with pytest.raises(DataError, match="expected lists of integers"):
            read_index_files(*paths, num_images=len(plan.image_ids), num_classes=11)
    paths[1].write_text("[[1, 2], [3]]")
    with pytest.raises(DataError, match="equally long"):
        read_index_files(*paths, num_images=len(plan.image_ids), num_classes=11)


@pytest.mark.sample
def test_epoch_lengths_at_real_size(sample_data: Path) -> None:
    records = json.loads((sample_data / "lvis_v0.5_category_counts.json").read_text())
    records = sorted(records, key=lambda r: (-r["instance_count"], r["id"]))
    assert [r["id"] for r in records[:5]] == [45, 126, 13, 221, 840]
    classes = tuple(
        ClassInfo(r["id"], r["name"], r["frequency"], *(2 * (r["instance_count"], r["image_count"])))
        for r in records
    )
    plan = PhasePlan(classes, phase_sizes(270, 160, len(classes)))
    assert [epoch_length(plan, p) for p in range(1, 7)] == [41502, 20623, 12467, 7643, 3741, 1597]
    zeros = []
    for phase in range(1, 7):
        seen = plan.classes[: plan.num_seen(phase)]
        raw = sample_counts(
            [c.train_instances for c in seen], [c.train_images for c in seen], plan.num_old(phase)
        )[1]
        zeros.append(raw.count(0.0))
    assert zeros == [0, 0, 0, 4, 42, 240]
