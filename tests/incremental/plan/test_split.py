"""Class order, valid pairs and derived files, against the reference and at the edges."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.split import (
    build_plan,
    category_counts,
    check_sorted_ids,
    derive_train_annotations,
    derive_val_annotations,
    sorted_category_ids,
    valid_pairs,
)
from maskrcnn_benchmark.utils.errors import ConfigError, DataError


def ann(i: int, image: int, category: int, w: float = 9.0, h: float = 9.0, **more: Any) -> dict[str, Any]:
    """One annotation."""
    return {"id": i, "image_id": image, "category_id": category, "bbox": [0.0, 0.0, w, h], **more}


def assert_same_annotations(built: dict[str, Any], source: dict[str, Any], expected: list[int]) -> None:
    """Equal sets per class, same order of classes, same order inside each image."""
    records = {a["id"]: a for a in source["annotations"]}
    for key in ("category_id", "image_id"):
        actual, reference = defaultdict(list), defaultdict(list)
        for a in built["annotations"]:
            actual[a[key]].append(a["id"])
        for i in expected:
            reference[records[i][key]].append(i)
        if key == "category_id":
            assert list(actual) == list(reference)
            assert {k: set(v) for k, v in actual.items()} == {k: set(v) for k, v in reference.items()}
        else:
            assert actual == reference


def test_sorted_ids_equal_the_reference(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    splits = golden["splits"]
    assert sorted_category_ids(golden["lvis_mini_train"]) == splits["sorted_id_all"]
    for phase, name in enumerate(("base", "step1", "step2")):
        assert mini_plan.seen_ids(phase) == splits[f"sorted_id_{name}"]
    assert {str(k): v for k, v in mini_plan.group_of_category().items()} == golden["eval"][
        "_phase_of_category"
    ]


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_train_files_equal_the_reference(golden: dict[str, Any], mini_plan: PhasePlan, phase: int) -> None:
    expected = golden["splits"]["splits"]["train_base" if phase == 0 else f"train_step{phase}"]
    built = derive_train_annotations(golden["lvis_mini_train"], mini_plan, phase)
    assert [im["id"] for im in built["images"]] == expected["image_ids"]
    assert [c["id"] for c in built["categories"]] == expected["category_ids"]
    assert sorted(built) == sorted(expected["top_level_keys"])
    assert_same_annotations(built, golden["lvis_mini_train"], expected["annotation_ids"])


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_val_files_equal_the_reference(golden: dict[str, Any], mini_plan: PhasePlan, phase: int) -> None:
    expected = golden["splits"]["splits"]["val_base" if phase == 0 else f"val_step{phase}"]
    built = derive_val_annotations(golden["lvis_mini_val"], mini_plan, phase, "positive")
    assert_same_annotations(built, golden["lvis_mini_val"], expected["annotation_ids"])
    assert [im["id"] for im in built["images"]] == expected["image_ids"]
    assert [c["id"] for c in built["categories"]] == expected["category_ids"]
    right = golden["eval"]["_phase_of_category"]
    assert all(c["step_state"] == right[str(c["id"])] for c in built["categories"])


def test_rule_all_keeps_every_image(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    val = golden["lvis_mini_val"]
    for phase in range(3):
        built = derive_val_annotations(val, mini_plan, phase, "all")
        assert built["images"] == val["images"]
        assert {c["id"] for c in built["categories"]} == set(mini_plan.seen_ids(phase))
    with pytest.raises(ConfigError, match="LST.VAL_IMAGES"):
        derive_val_annotations(val, mini_plan, 0, "some")
    assert "step_state" not in val["categories"][0]  # the input is left alone


def test_valid_pairs_rule() -> None:
    pairs = valid_pairs(
        [
            ann(1, 7, 1),
            ann(2, 7, 1, w=1.0),  # counts, because the pair has a good annotation too
            ann(3, 8, 1, h=0.5),  # alone: the pair is invalid
            ann(4, 8, 2, w=1.01, h=1.01),
            ann(5, 9, 1, iscrowd=1),
        ]
    )
    assert pairs == {1: {7: 2}, 2: {8: 1}}


def test_sort_keys_and_counting() -> None:
    data = {
        "images": [],
        "categories": [{"id": 9, "name": "a"}, {"id": 3, "name": "b"}, {"id": 5, "name": "c"}],
        "annotations": [ann(1, 1, 5), ann(2, 1, 5), ann(3, 1, 9), ann(4, 2, 9), ann(5, 1, 3)],
    }
    assert category_counts(data) == {9: (2, 2), 3: (1, 1), 5: (2, 1)}
    assert sorted_category_ids(data, "instance_count") == [5, 9, 3]
    assert sorted_category_ids(data, "image_count") == [9, 3, 5]
    assert sorted_category_ids(data, "file") == [9, 3, 5]
    with pytest.raises(ConfigError, match="LST.SORT_BY"):
        sorted_category_ids(data, "name")
    plan = build_plan(data, [9, 3, 5], 2, 1)
    assert [(c.train_instances, c.train_images, c.frequency) for c in plan.classes] == [
        (2, 2, ""),
        (1, 1, ""),
        (2, 1, ""),
    ]


def test_external_order_is_checked(golden: dict[str, Any]) -> None:
    train = golden["lvis_mini_train"]
    ids = golden["splits"]["sorted_id_all"]
    assert check_sorted_ids(ids[::-1], train, "order.json") == ids[::-1]
    for bad in (ids[:-1], [*ids, 999], [*ids[:-1], ids[0]], {"a": 1}, ["2"]):
        with pytest.raises(DataError, match=r"order\.json"):
            check_sorted_ids(bad, train, "order.json")
