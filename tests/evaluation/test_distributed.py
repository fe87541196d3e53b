"""Processes that share the images report what one process reports; detections travel through files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.evaluation import collect
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.coco import CocoEvaluator
from maskrcnn_benchmark.evaluation.protocols.lvis import LvisEvaluator
from maskrcnn_benchmark.evaluation.protocols.proposals import ProposalEvaluator
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import TEMPORARY

pytestmark = pytest.mark.dist
IDS = [11, 4, 9, 2, 30]


def _dataset() -> dict[str, Any]:
    """Five images with an object each, two categories."""
    image = {"width": 64, "height": 48, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    return {
        "images": [image | {"id": i} for i in IDS],
        "annotations": [
            {
                "id": n + 1,
                "image_id": i,
                "category_id": 1 + n % 2,
                "bbox": [5, 5, 20, 20],
                "area": 400,
                "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]],
            }
            for n, i in enumerate(IDS)
        ],
        "categories": [{"id": 1, "name": "a", "frequency": "r"}, {"id": 2, "name": "b", "frequency": "f"}],
    }


def _prediction(image_id: int) -> BoxList:
    """Two boxes with masks; image 9 has none, some are wrong, so that AP is neither 0 nor 1."""
    boxes = torch.tensor([[5.0, 5, 24, 24], [5.0, 5, 22, 26]])[: 0 if image_id == 9 else 2]
    predicted = BoxList(boxes + (4 if image_id == 30 else 0), (64, 48))
    predicted.add_field("scores", torch.tensor([0.5 + image_id / 100, 0.4])[: len(boxes)])
    predicted.add_field("labels", torch.tensor([1 + IDS.index(image_id) % 2, 1])[: len(boxes)])
    predicted.add_field("mask", torch.ones(len(boxes), 1, 28, 28))
    return predicted


def _evaluate(folder: Path, ids: list[int], *, iou_types: tuple[str, ...] = ("bbox", "segm")) -> Any:
    """Numbers on this process, its detections, and whether it has the arrays; two evaluations in a row.

    The last rank repeats the first image, as padding samplers do.
    """
    collect.SHARD_DETECTIONS = 3  # several shards for each process
    evaluator = LvisEvaluator(_dataset(), [0, 1, 2], iou_types, shard_folder=folder)
    rank, world = comm.get_rank(), comm.get_world_size()
    for _ in range(2):
        evaluator.reset()
        for image_id in ids[rank::world] + (ids[:1] if rank == world - 1 else []):
            evaluator.process([image_id], [_prediction(image_id)])
        report = evaluator.evaluate()
    return report.metrics, report.detections.to_json(), report.tasks["bbox"].result is not None


@pytest.mark.parametrize("ids", [IDS, IDS[:2], [9]], ids=["all", "fewer than ranks", "nothing found"])
def test_every_number_of_processes_reports_the_same(
    tmp_path: Path, run_ranks: Callable[..., list[Any]], ids: list[int]
) -> None:
    stale = tmp_path / "run" / f".shards{TEMPORARY}old"
    stale.mkdir(parents=True)
    wrong = Detections(np.array([2]), np.array([1]), np.array([0.99]), np.array([[5.0, 5, 20, 20]]))
    np.savez(stale / "00000_00000.npz", **wrong.columns(), seen=np.array([2]))
    ((metrics, detections, _),) = run_ranks(_evaluate, 1, tmp_path / "run", ids)
    assert len(detections) == 2 * len([i for i in ids if i != 9])
    assert (0.1 < metrics["segm/AP50"] < 1) == (ids != [9])
    for world in (2, 3):
        first, *others = run_ranks(_evaluate, world, tmp_path / "run", ids)
        assert first == (metrics, detections, True)
        assert others == [(metrics, [], False)] * (world - 1)
        assert list((tmp_path / "run").iterdir()) == []


def _refused(folder: Path | None, wrong_mask: bool) -> str:
    """The message that a process gets when evaluation on the first one fails, or the folder is not given."""
    dataset = _dataset()
    if wrong_mask:
        dataset["annotations"][0]["segmentation"] = "unreadable"
    evaluator = CocoEvaluator(dataset, [0, 1, 2], ("bbox", "segm"), shard_folder=folder)
    try:
        evaluator.reset()
        evaluator.process([IDS[comm.get_rank()]], [_prediction(IDS[comm.get_rank()])])
        evaluator.evaluate()
    except (DataError, ValueError) as error:
        return str(error)
    return ""


def test_errors_reach_every_process(tmp_path: Path, run_ranks: Callable[..., list[Any]]) -> None:
    messages = run_ranks(_refused, 2, tmp_path / "run", True)
    assert messages[0] == messages[1] and "annotation 1" in messages[0]
    assert all("shard_folder" in text for text in run_ranks(_refused, 2, None, False))


def test_columns_keep_the_masks(tmp_path: Path) -> None:
    """Detections survive being taken apart, also a selection whose masks share a longer text."""
    evaluator = LvisEvaluator(_dataset(), [0, 1, 2], ("bbox", "segm"))
    evaluator.process(IDS, [_prediction(i) for i in IDS])
    whole = evaluator.evaluate().detections
    for some in (whole, whole.select(np.array([6, 1, 3])), Detections.empty(with_masks=True)):
        assert Detections.from_columns(some.columns()).to_json() == some.to_json()
    boxes = Detections(whole.image_ids, whole.category_ids, whole.scores, whole.boxes)
    assert Detections.from_columns(boxes.columns()).rles is None


def _keypoints_and_proposals(folder: Path) -> Any:
    """Metrics of keypoints and of proposals, from detections whose corners are their keypoints."""
    collect.SHARD_DETECTIONS = 3
    data = _dataset()
    for annotation in data["annotations"]:
        annotation["keypoints"] = [5, 5, 2, 24, 24, 1]
    evaluators = (
        CocoEvaluator(data, [0, 1, 2], ("keypoints",), keypoint_sigmas=(0.2, 0.2), shard_folder=folder / "k"),
        ProposalEvaluator(data, shard_folder=folder / "p"),
    )
    for evaluator in evaluators:
        evaluator.reset()
        for image_id in IDS[comm.get_rank() :: comm.get_world_size()]:
            predicted = _prediction(image_id).copy_with_fields(["scores", "labels"])
            corners = torch.cat((predicted.bbox.reshape(-1, 2, 2), torch.ones(len(predicted), 2, 1)), dim=2)
            predicted.add_field("keypoints", Keypoints(corners, predicted.size, (0, 1)))
            predicted.add_field("objectness", predicted.get_field("scores"))
            evaluator.process([image_id], [predicted])
    reports = [evaluator.evaluate() for evaluator in evaluators]
    return [report.metrics for report in reports], [len(report.detections) for report in reports]


def test_keypoints_and_proposals_of_several_processes(
    tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    ((metrics, counts),) = run_ranks(_keypoints_and_proposals, 1, tmp_path / "one")
    assert counts == [8, 8] and 0 < metrics[0]["keypoints/AP"] < 1
    assert 0 < metrics[1]["box_proposal/AR@100"] < 1
    results = run_ranks(_keypoints_and_proposals, 3, tmp_path / "three")
    assert [values for values, _ in results] == [metrics] * 3
    assert results[0][1] == counts
