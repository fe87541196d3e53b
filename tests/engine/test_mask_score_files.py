"""The result file of each task has the score that counts for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.coco import CocoEvaluator
from maskrcnn_benchmark.structures.boxlist import BoxList


def test_scores_in_the_files_of_a_test(tmp_path: Path) -> None:
    square = {"bbox": [2, 2, 6, 6], "segmentation": [[2, 2, 8, 2, 8, 8, 2, 8]], "area": 36, "iscrowd": 0}
    dataset = {
        "images": [{"id": 3, "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 9, **square}],
        "categories": [{"id": 9, "name": "box"}],
    }
    evaluator = CocoEvaluator(dataset, [0, 9], ("bbox", "segm"))
    evaluator.reset()
    prediction = BoxList([[2.0, 2, 7, 7], [0, 0, 3, 3]], (20, 10))
    prediction.add_field("scores", torch.tensor([0.5, 0.25]))
    prediction.add_field("mask_scores", torch.tensor([0.0, 0.125]))
    prediction.add_field("labels", torch.tensor([1, 1]))
    prediction.add_field("mask", torch.ones(2, 1, 4, 4))
    evaluator.process([3], [prediction])
    evaluator.write(evaluator.evaluate(), tmp_path)
    written = {task: json.loads((tmp_path / f"{task}.json").read_text()) for task in ("bbox", "segm")}
    assert [row["score"] for row in written["bbox"]] == [0.5, 0.25]
    assert [row["score"] for row in written["segm"]] == [0.0, 0.125]
    assert not any("mask_score" in row for rows in written.values() for row in rows)
    assert np.array_equal(Detections.read(tmp_path / "segm.json").scores, [0.0, 0.125])
