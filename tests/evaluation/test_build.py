"""The evaluator that a config and a kind of data ask for, and the tables of kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.config.catalog import KINDS, DatasetKind
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.readers import READERS
from maskrcnn_benchmark.evaluation.base import EVALUATORS, DetectionEvaluator
from maskrcnn_benchmark.evaluation.build import build_evaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.coco import evaluate_coco
from maskrcnn_benchmark.evaluation.report import TaskReport
from maskrcnn_benchmark.utils.errors import DataError

DATASET: dict[str, Any] = {
    "images": [{"id": 1, "width": 40, "height": 20}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9], "area": 81}],
    "categories": [{"id": 5, "name": "dog"}],
}


def _build(kind: str, *overrides: Any) -> Any:
    return build_evaluator(load_config(None, overrides), DATASET, [0, 5], kind=kind)


def test_tables_of_kinds_agree() -> None:
    """Every kind has a reader, and an evaluator that can do all that the kind can be tested for."""
    assert READERS.names() == sorted(KINDS)
    for kind in KINDS.values():
        assert set(kind.tasks) <= set(EVALUATORS.get(kind.evaluator).supported_tasks)


@pytest.mark.parametrize("kind", KINDS)
def test_options_come_from_the_config(kind: str) -> None:
    test = ["TEST.VOC_METRIC", "area", "TEST.LVIS_PROTOCOL", "fixed", "TEST.FIXED_DETS_PER_CLASS", 70]
    evaluator = _build(kind, *test, "TEST.KEYPOINT_OKS_SIGMAS", (0.5,))
    assert type(evaluator) is EVALUATORS.get(KINDS[kind].evaluator) and evaluator.tasks == ("bbox",)
    expected = {"metric": "area", "fixed_limit": 70, "keypoint_sigmas": (0.5,)}
    given = {name: value for name, value in expected.items() if hasattr(evaluator, name)}
    names = {"coco": {"keypoint_sigmas"}, "lvis": {"keypoint_sigmas", "fixed_limit"}, "voc": {"metric"}}
    assert set(given) == names.get(KINDS[kind].evaluator, set())
    assert all(getattr(evaluator, name) == value for name, value in given.items())


def test_the_model_decides_on_the_tasks() -> None:
    keypoints = ("MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.RESOLUTION", 56)
    both = ("MODEL.MASK_ON", True, *keypoints)
    assert _build("coco", *both).tasks == ("bbox", "segm", "keypoints")
    assert _build("voc", "MODEL.RPN_ONLY", True).tasks == ("box_proposal",)
    with pytest.raises(DataError, match=r"voc cannot be tested for segm; set MODEL\.MASK_ON False"):
        _build("voc", "MODEL.MASK_ON", True)
    with pytest.raises(DataError, match=r"MASK_ON False and MODEL\.KEYPOINT_ON False"):
        _build("voc", *both)


def test_adding_a_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A row and a protocol, without an edit of the package."""
    monkeypatch.setattr(EVALUATORS, "_entries", dict(EVALUATORS._entries))
    monkeypatch.setitem(KINDS, "toy", DatasetKind("toy", ("bbox",)))

    @EVALUATORS.register("toy")
    class ToyEvaluator(DetectionEvaluator):
        protocol = "toy"
        supported_tasks = ("bbox",)

        def evaluate_task(self, detections: Detections, task: str) -> TaskReport:
            return self.ap_report(evaluate_coco(self.dataset, detections, task))

    evaluator = _build("toy")
    evaluator.reset()
    report = evaluator.evaluate()
    assert report.protocol == "toy" and report.metrics["bbox/AP"] == 0
    evaluator.write(report, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "per_class.csv", "bbox.json"}
