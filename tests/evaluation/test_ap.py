"""Precision and recall arrays equal to the bit to those of pycocotools and lvis-api."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.ap import COCO_MAX_DETS
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.coco import evaluate_coco
from maskrcnn_benchmark.evaluation.protocols.lvis import evaluate_lvis
from maskrcnn_benchmark.utils.errors import DataError


def _load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ap_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ref = _load_reference()


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_coco_arrays_equal(seed: int, iou_type: str) -> None:
    dataset = ref.random_dataset(seed, crowd=seed % 2 == 0)
    per_image = 400 if seed == 5 else 40
    results = ref.random_results(dataset, seed, per_image=per_image, digits=1 if seed == 3 else 2)
    for row in results:
        row.pop("bbox" if iou_type == "segm" else "segmentation")
    expected = ref.run_pycocotools(dataset, results, iou_type)
    result = evaluate_coco(dataset, Detections.from_json(results), iou_type)
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])
    np.testing.assert_array_equal(result.recall, expected.eval["recall"])
    assert list(result.metrics().values()) == expected.stats.tolist()
    assert (result.precision > 0).any()


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_lvis_arrays_equal(seed: int, iou_type: str, tmp_path: Path) -> None:
    dataset = ref.random_dataset(seed + 100)
    per_image = 700 if seed == 5 else 40
    results = ref.random_results(dataset, seed, per_image=per_image, digits=1 if seed == 3 else 2)
    expected = ref.run_lvis(tmp_path, dataset, results, iou_type)
    result = evaluate_lvis(dataset, Detections.from_json(results), iou_type)
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])
    np.testing.assert_array_equal(result.recall, expected.eval["recall"])
    assert result.metrics() == dict(expected.results)
    assert (result.precision > 0).any()


def test_lvis_mask_area_equals_results_without_box(tmp_path: Path) -> None:
    dataset = ref.random_dataset(7)
    results = ref.random_results(dataset, 7, with_box=False)
    expected = ref.run_lvis(tmp_path, dataset, results, "segm")
    result = evaluate_lvis(dataset, Detections.from_json(results), "segm", area="mask")
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])
    assert result.area == "mask"


@pytest.mark.parametrize("limit", [5, 60, 10_000])
def test_ap_fixed_takes_the_best_of_every_class(limit: int, tmp_path: Path) -> None:
    dataset = ref.random_dataset(31, images=4)
    results = ref.random_results(dataset, 31, per_image=900, digits=3)
    assert np.unique([row["image_id"] for row in results], return_counts=True)[1].max() > 300
    best = []
    for category in {row["category_id"] for row in results}:
        of_class = [row for row in results if row["category_id"] == category]
        best += sorted(of_class, key=lambda row: -row["score"])[:limit]
    expected = ref.run_lvis(tmp_path, dataset, best, "bbox", max_dets=-1)
    result = evaluate_lvis(dataset, Detections.from_json(results), "bbox", fixed_limit=limit)
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])
    np.testing.assert_array_equal(result.recall, expected.eval["recall"])
    assert result.num_detections == len(best)
    assert f"AR@{limit}/class" in result.metrics()


def test_records_of_lvis_v1(tmp_path: Path) -> None:
    """Further keys, no file names, and no frequencies in categories that nobody counted."""
    dataset = ref.random_dataset(12)
    for image in dataset["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image['id']:012d}.jpg"
    for category in dataset["categories"]:
        category |= {"synset": "a.n.01", "def": "", "synonyms": ["a"], "image_count": 3, "instance_count": 4}
    results = ref.random_results(dataset, 12)
    expected = ref.run_lvis(tmp_path, dataset, results, "segm")
    kept = Detections.from_json(results)
    result = evaluate_lvis(dataset, kept, "segm")
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])
    for category in dataset["categories"]:
        del category["frequency"]
    plain = evaluate_lvis(dataset, kept, "segm").metrics()
    assert plain["AP"] == result.metrics()["AP"] and plain["APr"] == -1.0


def test_coco_box_area_equals_results_with_box() -> None:
    dataset = ref.random_dataset(8)
    results = ref.random_results(dataset, 8)
    expected = ref.run_pycocotools(dataset, results, "segm")
    result = evaluate_coco(dataset, Detections.from_json(results), "segm", area="box")
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])


def test_cap_of_300_counts_all_categories_before_any_filter(tmp_path: Path) -> None:
    dataset = ref.random_dataset(9, images=3)
    results = ref.random_results(dataset, 9, per_image=1200, digits=1)
    counts = np.unique([row["image_id"] for row in results], return_counts=True)[1]
    assert counts.max() > 300
    result = evaluate_lvis(dataset, Detections.from_json(results), "bbox")
    assert result.num_detections == np.minimum(counts, 300).sum()
    expected = ref.run_lvis(tmp_path, dataset, results, "bbox")
    np.testing.assert_array_equal(result.recall, expected.eval["recall"])


@pytest.mark.parametrize("evaluate", [evaluate_coco, evaluate_lvis])
def test_no_detection_is_zero_where_there_is_ground_truth(evaluate: Any) -> None:
    dataset = ref.random_dataset(1)
    result = evaluate(dataset, Detections.empty(with_masks=True), "segm")
    assert result.metrics()["AP"] == 0.0
    assert set(np.unique(result.precision)) <= {0.0, -1.0}


@pytest.mark.parametrize("evaluate", [evaluate_coco, evaluate_lvis])
def test_no_ground_truth_is_undefined(evaluate: Any) -> None:
    dataset = ref.random_dataset(1)
    results = ref.random_results(dataset, 1)
    dataset["annotations"] = []
    result = evaluate(dataset, Detections.from_json(results), "bbox")
    assert set(result.metrics().values()) == {-1.0}
    assert set(result.per_category().values()) == {-1.0}


def test_empty_file() -> None:
    result = evaluate_coco({"images": [], "annotations": [], "categories": []}, Detections.empty(), "bbox")
    assert result.metrics()["AP"] == -1.0
    assert result.precision.shape == (10, 101, 0, 4, len(COCO_MAX_DETS))


def test_per_category_averages_to_ap() -> None:
    dataset = ref.random_dataset(2)
    result = evaluate_lvis(dataset, Detections.from_json(ref.random_results(dataset, 2)), "bbox")
    defined = [value for value in result.per_category().values() if value > -1]
    assert np.mean(defined) == pytest.approx(result.metrics()["AP"])
    recalls = [value for value in result.per_category_recall().values() if value > -1]
    assert np.mean(recalls) == pytest.approx(result.metrics()["AR@300"])


def test_perfect_detections_reach_one() -> None:
    dataset = ref.random_dataset(3)
    rows = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in dataset["annotations"]
        if a["area"] > 0
    ]
    result = evaluate_lvis(dataset, Detections.from_json(rows), "bbox")
    assert result.metrics()["AP"] == pytest.approx(1.0)


def test_order_of_images_and_categories_in_the_file_is_irrelevant() -> None:
    dataset = ref.random_dataset(4)
    detections = Detections.from_json(ref.random_results(dataset, 4))
    before = evaluate_lvis(dataset, detections, "segm")
    other = copy.deepcopy(dataset)
    other["images"].reverse()
    other["categories"].reverse()
    np.testing.assert_array_equal(evaluate_lvis(other, detections, "segm").precision, before.precision)


def test_ground_truth_is_not_changed() -> None:
    dataset = ref.random_dataset(5)
    before = copy.deepcopy(dataset)
    evaluate_lvis(dataset, Detections.from_json(ref.random_results(dataset, 5)), "segm")
    assert dataset == before


def test_errors_name_the_offending_record() -> None:
    dataset = ref.random_dataset(6)
    row = {"image_id": 999, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    with pytest.raises(DataError, match="image id 999"):
        evaluate_coco(dataset, Detections.from_json([row]), "bbox")
    row |= {key: dataset["annotations"][0][key] for key in ("image_id", "category_id")}
    with pytest.raises(DataError, match="needs a segmentation"):
        evaluate_lvis(dataset, Detections.from_json([row]), "segm")
    with pytest.raises(DataError, match="bbox.*segm"):
        evaluate_lvis(dataset, Detections.from_json([row]), "keypoints")
    with pytest.raises(DataError, match="box.*mask"):
        evaluate_lvis(dataset, Detections.from_json([row]), "bbox", area="none")
    lost = copy.deepcopy(dataset)
    lost["annotations"][0]["image_id"] = 12345
    with pytest.raises(DataError, match="annotation .* belongs to image 12345, which has no record"):
        evaluate_coco(lost, Detections.empty(), "bbox")
    del lost["annotations"][0]["bbox"]
    with pytest.raises(DataError, match='annotation .* has no "bbox"'):
        evaluate_coco(lost, Detections.empty(), "bbox")


def test_mask_of_another_size_is_an_error() -> None:
    dataset = ref.random_dataset(6)
    results = ref.random_results(dataset, 6)
    results[0]["segmentation"] = {"size": [60, 80], "counts": "Pf4"}  # 4800 pixels of background
    with pytest.raises(DataError, match=rf"image {results[0]['image_id']} has size \[60, 80\]"):
        evaluate_coco(dataset, Detections.from_json(results), "segm")


@pytest.mark.parametrize("bad", [None, "abc", [1.0, 2.0], {"size": [3, 3]}])
def test_unreadable_mask_names_the_annotation(bad: Any) -> None:
    box = [10.0, 10.0, 30.0, 30.0]
    dataset = ref.random_dataset(6, images=1)
    image, category = dataset["images"][0]["id"], dataset["categories"][0]["id"]
    dataset["annotations"] = [
        {
            "id": 77,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": 900.0,
            "segmentation": bad,
        }
    ]
    results = ref.random_results(ref.random_dataset(6, images=1), 3)
    for row in results:
        row["category_id"] = category
    assert results
    with pytest.raises(DataError, match="annotation 77"):
        evaluate_lvis(dataset, Detections.from_json(results), "segm")
