"""Category by category gives what IoU, matching and accumulation of all pairs give."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.evaluation.ap import AREA_RANGES, IOU_THRESHOLDS, RECALL_POINTS
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import read_ground_truth
from maskrcnn_benchmark.evaluation.iou import comparable, pair_ious
from maskrcnn_benchmark.evaluation.matching import accumulate, match_pairs
from maskrcnn_benchmark.evaluation.pairs import build_pairs, group_pairs, index_detections
from maskrcnn_benchmark.evaluation.streamed import streamed_precision


def _load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ap_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ref = _load_reference()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("limit", [None, 2])
def test_equal_to_all_pairs_at_once(iou_type: str, threads: int, limit: int | None) -> None:
    dataset = ref.random_dataset(3)
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    detections = comparable(truth, Detections.from_json(ref.random_results(dataset, 3)), iou_type)
    images, categories = index_detections(detections, truth)
    areas = detections.areas(iou_type, "mask")
    ignored = np.random.default_rng(0).random(len(detections)) < 0.2
    pairs = build_pairs(
        truth,
        detections,
        det_images=images,
        det_categories=categories,
        det_areas=areas,
        ignore_unmatched=ignored,
        similarity=partial(pair_ious, iou_type=iou_type),
        max_per_pair=limit,
    )
    expected = accumulate(
        pairs,
        match_pairs(pairs, IOU_THRESHOLDS, AREA_RANGES),
        num_categories=len(truth.category_ids),
        recall_points=RECALL_POINTS,
        max_dets=(1, None),
    )
    layout = group_pairs(
        truth, detections.scores, det_images=images, det_categories=categories, max_per_pair=limit
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = streamed_precision(
            truth,
            detections,
            layout,
            iou_type,
            det_areas=areas,
            ignore_unmatched=ignored,
            max_dets=(1, None),
        )
    finally:
        torch.set_num_threads(before)
    for ours, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(ours, other)
    assert (result[0] > 0).any()


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_sorted_as_by_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dataset = ref.random_dataset(seed)
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    count, limit = int(rng.integers(0, 200)), rng.choice([None, 1, 3])
    images = rng.integers(0, len(truth.image_ids), count)
    categories = rng.integers(-1, len(truth.category_ids), count)
    scores = rng.integers(0, 4, count) / 4.0
    layout = group_pairs(truth, scores, det_images=images, det_categories=categories, max_per_pair=limit)
    keys = categories * len(truth.image_ids) + images
    order = [i for i in np.lexsort((-scores, keys)).tolist() if categories[i] >= 0]
    kept = [i for n, i in enumerate(order) if limit is None or (keys[order[:n]] == keys[i]).sum() < limit]
    assert layout.det_order.tolist() == kept
    gt_keys = truth.categories * len(truth.image_ids) + truth.images
    assert layout.gt_order.tolist() == np.argsort(gt_keys, kind="stable").tolist()
    present = np.union1d(keys[kept].astype(np.int64), gt_keys)
    assert layout.categories.tolist() == (present // len(truth.image_ids)).tolist()
    assert layout.det_start.tolist() == [*np.searchsorted(keys[kept], present).tolist(), len(kept)]
    assert layout.gt_start.tolist() == [
        *np.searchsorted(gt_keys[layout.gt_order], present).tolist(),
        len(gt_keys),
    ]
