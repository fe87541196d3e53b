"""Scores that count for masks alone, and masks of whole images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.evaluation import collect
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.cityscapes import evaluate_cityscapes
from maskrcnn_benchmark.evaluation.protocols.coco import evaluate_coco
from maskrcnn_benchmark.evaluation.protocols.lvis import LvisEvaluator, evaluate_lvis
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import write_json

SIDE = 40


def _dataset(num_images: int = 6) -> dict[str, Any]:
    """Two squares of two classes in every image."""
    annotations = []
    for image in range(1, num_images + 1):
        for category, x in ((1, 4), (2, 22)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [x, 8, 12, 12],
                    "area": 144,
                    "iscrowd": 0,
                    "segmentation": [[x, 8, x + 12, 8, x + 12, 20, x, 20]],
                }
            )
    listed = {"neg_category_ids": [1, 2], "not_exhaustive_category_ids": []}
    images = [{"id": i + 1, "width": SIDE, "height": SIDE, **listed} for i in range(num_images)]
    categories = [{"id": c, "name": f"c{c}", "frequency": "f"} for c in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _detections(count: int = 60, seed: int = 0) -> Detections:
    """Squares near the objects, scores and mask scores at odds, some of both equal and zero."""
    rng = np.random.default_rng(seed)
    corners = np.stack([rng.choice([4, 22], count), np.full(count, 8)], axis=1) + rng.integers(
        -3, 4, (count, 2)
    )
    rles = []
    for x, y in corners:
        grid = np.zeros((SIDE, SIDE), np.uint8, order="F")
        grid[y : y + 12, x : x + 12] = 1
        rles.append(mask_utils.encode(grid))
    return Detections(
        rng.integers(1, 7, count),
        rng.integers(1, 3, count),
        rng.integers(0, 20, count) / 20,
        np.concatenate([corners, np.full((count, 2), 12)], axis=1),
        rles,
        mask_scores=rng.integers(0, 20, count) / 20,
    )


def _with(detections: Detections, scores: np.ndarray) -> Detections:
    """The same with other scores and none for masks."""
    return Detections(
        detections.image_ids, detections.category_ids, scores, detections.boxes, detections.rles
    )


@pytest.mark.parametrize("evaluate", [evaluate_coco, evaluate_lvis, evaluate_cityscapes])
def test_masks_are_ranked_by_their_own_scores(evaluate: Any) -> None:
    """Equal to results that hold the scores of the task."""
    detections, dataset = _detections(), _dataset()
    assert detections.mask_scores is not None and (detections.mask_scores == 0).any()
    seen = {}
    for task, scores in (("bbox", detections.scores), ("segm", detections.mask_scores)):
        seen[task] = evaluate(dataset, detections, task)
        expected = evaluate(dataset, _with(detections, scores), task)
        assert seen[task].metrics() == expected.metrics()
    assert seen["segm"].metrics() != evaluate(dataset, _with(detections, detections.scores), "segm").metrics()


@pytest.mark.parametrize("limit", [3, 7])
def test_limits_take_the_score_of_the_task(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """AP-fixed keeps the best of either score, also where weak detections are forgotten on the way."""
    detections, dataset = _detections(), _dataset()
    for task, scores in (("bbox", detections.scores), ("segm", detections.mask_scores)):
        assert scores is not None
        alone = evaluate_lvis(dataset, _with(detections, scores), task, fixed_limit=limit)
        assert evaluate_lvis(dataset, detections, task, fixed_limit=limit).metrics() == alone.metrics()
    best = detections.top_per_category(limit)
    assert len(best) > 2 * limit and len(best.scored_for("segm").top_per_category(limit)) == 2 * limit
    assert best.mask_scores is not None and detections.mask_scores is not None
    assert best.mask_scores.max() == detections.mask_scores.max()


def test_files_carry_them(tmp_path: Path) -> None:
    """JSON in Python and native, columns, selections, joined parts; without them nothing is written."""
    detections = _detections(9)
    rows = detections.to_json()
    assert [row["mask_score"] for row in rows] == detections.mask_scores.tolist()  # type: ignore[union-attr]
    write_json(tmp_path / "results.json", rows)
    order = np.array([4, 2, 7])
    copies = [
        Detections.from_json(rows),
        Detections.read(tmp_path / "results.json"),
        Detections.from_columns(detections.columns()),
        Detections.concatenate(
            [detections.select(np.arange(4)), Detections.empty(), detections.select(np.arange(4, 9))]
        ),
    ]
    for copy in copies:
        assert copy.to_json() == rows
        assert copy.select(order).to_json() == [rows[i] for i in order]
    grown = Detections.empty()
    grown.extend(detections)
    assert grown.to_json() == rows
    plain = detections.scored_for("bbox")
    assert plain.mask_scores is None and "mask_score" not in plain.to_json()[0]
    assert plain.scored_for("segm") is plain
    assert Detections.concatenate([detections, plain]).mask_scores is None


def test_some_or_wrong_ones_are_refused(tmp_path: Path) -> None:
    rows = _detections(3).to_json()
    del rows[1]["mask_score"]
    write_json(tmp_path / "results.json", rows)
    for read in (lambda: Detections.from_json(rows), lambda: Detections.read(tmp_path / "results.json")):
        with pytest.raises(DataError, match="2 of 3 entries have a mask_score"):
            read()
    with pytest.raises(DataError, match="differ in length"):
        Detections(np.ones(2), np.ones(2), np.ones(2), np.ones((2, 4)), mask_scores=np.ones(1))
    with pytest.raises(DataError, match="image 4 is NaN"):
        Detections(
            np.array([3, 4]), np.ones(2), np.ones(2), np.ones((2, 4)), mask_scores=np.array([0, np.nan])
        )
    (tmp_path / "text.json").write_text('[{"image_id": 1, "category_id": 1, "score": 1, "mask_score": "x"}]')
    with pytest.raises(DataError, match="a number as mask_score"):
        Detections.read(tmp_path / "text.json")


def _prediction(masks: torch.Tensor) -> BoxList:
    """Two boxes at half the size of an image of 40 x 40; the second has the better mask."""
    boxes = BoxList([[2.0, 4, 7.5, 9.5], [11.0, 4, 16.5, 9.5]], (20, 20))
    boxes.add_field("scores", torch.tensor([0.9, 0.5]))
    boxes.add_field("mask_scores", torch.tensor([0.0, 0.4]))
    boxes.add_field("labels", torch.tensor([1, 2]))
    boxes.add_field("mask", masks)
    return boxes


def test_masks_of_the_whole_image() -> None:
    """At the original size they are taken as they are, at another they are resized; uint8 is refused."""
    full = torch.zeros((2, 1, SIDE, SIDE), dtype=torch.bool)
    full[0, 0, 8:20, 4:16] = full[1, 0, 30:31, 0:40:2] = True
    detections = boxlist_to_detections(_prediction(full), 1, (SIDE, SIDE), [0, 1, 2])
    assert detections.rles is not None and detections.mask_scores is not None
    assert np.array_equal(mask_utils.decode(detections.rles[1]), full[1, 0].numpy())
    assert detections.mask_scores.tolist() == pytest.approx([0.0, 0.4]) and detections.scores[
        0
    ] == pytest.approx(0.9)
    halved = torch.zeros((2, 1, 20, 20), dtype=torch.bool)
    halved[0, 0, 4:10, 2:8] = True
    detections = boxlist_to_detections(_prediction(halved), 1, (SIDE, SIDE), [0, 1, 2])
    assert detections.rles is not None and np.array_equal(
        mask_utils.decode(detections.rles[0]), full[0, 0].numpy()
    )
    assert mask_utils.decode(detections.rles[1]).sum() == 0
    with pytest.raises(TypeError, match="probabilities or bool"):
        boxlist_to_detections(_prediction(full.to(torch.uint8)), 1, (SIDE, SIDE), [0, 1, 2])
    with pytest.raises(ValueError, match=r"\(N,1,h,w\)"):
        boxlist_to_detections(_prediction(full[:, 0]), 1, (SIDE, SIDE), [0, 1, 2])


def test_from_predictions_to_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranking right masks above wrong ones by the mask score gives full mask AP, box AP as before."""
    monkeypatch.setattr(collect, "SHARD_DETECTIONS", 4)
    full = torch.zeros((3, 1, SIDE, SIDE), dtype=torch.bool)
    full[0, 0, 8:20, 4:16] = full[1, 0, 8:20, 22:34] = full[2, 0, 0:3, 0:3] = True
    for limit in (None, 50):
        evaluator = LvisEvaluator(_dataset(), [0, 1, 2], ("bbox", "segm"), fixed_limit=limit)
        evaluator.reset()
        for image in range(1, 7):
            boxes = BoxList([[4.0, 8, 15, 19], [22, 8, 33, 19], [4, 8, 15, 19]], (SIDE, SIDE))
            boxes.add_field("scores", torch.tensor([0.5, 0.5, 0.9]))
            boxes.add_field("mask_scores", torch.tensor([0.4, 0.5, 0.1]))
            boxes.add_field("labels", torch.tensor([1, 2, 1]))
            boxes.add_field("mask", full)
            evaluator.process([image], [boxes])
        metrics = evaluator.evaluate().metrics
        assert metrics["bbox/AP"] == pytest.approx(1.0) and metrics["segm/AP"] == pytest.approx(1.0)
