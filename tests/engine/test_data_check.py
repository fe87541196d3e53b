"""What testing would refuse is refused before training; a test set without annotations is predicted on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.engine.train_and_test import build_seeded_model, test_plain, train_plain
from maskrcnn_benchmark.utils.errors import DataError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo data of 4 + 3 images."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    generate_demo(folder, DemoOptions(train=4, val=3, size=64, seed=0, classes=6), report=lambda text: None)
    return folder


@pytest.fixture
def cfg(project_root: Path, tmp_path: Path, demo: Path) -> CfgNode:
    """The tiny Mask R-CNN for one iteration."""
    overrides = [
        *("DATASETS.TRAIN", f"('lvis:{demo}/train.json@{demo}/images/train',)"),
        *("DATASETS.TEST", f"('lvis:{demo}/val.json@{demo}/images/val',)"),
        *("OUTPUT_DIR", str(tmp_path / "out"), "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2"),
    ]
    return load_config(project_root / "tests" / "engine" / "tiny.yaml", overrides)


def _edited(demo: Path, tmp_path: Path, part: str, change: Callable[[dict[str, Any]], Any]) -> str:
    """An inline data set: `part` of the demo data after a change."""
    content = json.loads((demo / f"{part}.json").read_text())
    change(content)
    (tmp_path / f"{part}.json").write_text(json.dumps(content))
    return f"lvis:{tmp_path}/{part}.json@{demo}/images/{part}"


TEST_SETS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no masks": (
        lambda c: [a.pop("segmentation") for a in c["annotations"]],
        r"val\.json: annotation \d+ has no segmentation \(\d+ of \d+ have none\), but masks are tested",
    ),
    "a null mask": (
        lambda c: c["annotations"][0].update(segmentation=None),
        r"val\.json: annotation \d+ has no segmentation although others have",
    ),
    "short run lengths": (
        lambda c: c["annotations"][0].update(segmentation={"size": [64, 64], "counts": "04"}),
        r"val\.json: annotation \d+ .* do not describe a mask",
    ),
    "missing image": (
        lambda c: c["images"][1].update(file_name="gone.jpg"),
        r"image \d+ is missing: no file .*gone\.jpg; 1 of 3 images of .*val\.json",
    ),
    "area of text": (lambda c: c["annotations"][0].update(area="9"), "has the area '9'"),
}


@pytest.mark.parametrize("case", list(TEST_SETS))
@pytest.mark.parametrize("tested_after", [True, False])
def test_a_test_set_is_refused_before_training(
    cfg: CfgNode, demo: Path, tmp_path: Path, case: str, tested_after: bool
) -> None:
    change, message = TEST_SETS[case]
    cfg = clone_with(cfg, ["DATASETS.TEST", (_edited(demo, tmp_path, "val", change),)])
    if not tested_after:
        cfg = clone_with(cfg, ["SOLVER.TEST_PERIOD", 1])
    with pytest.raises(DataError, match=message):
        train_plain(cfg, tested_after=tested_after)
    assert not list(Path(cfg.OUTPUT_DIR).glob("*.pth"))


TRAINING_SETS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing image": (
        lambda c: c["images"][0].update(file_name="gone.jpg"),
        r"image \d+ is missing: no file .*gone\.jpg; 1 of [34] images of .*train\.json",
    ),
    "no annotations": (lambda c: c.pop("annotations"), "can be predicted on, not trained on"),
    "empty list": (lambda c: c.update(annotations=[]), r"no usable image: .*train\.json has no annotations"),
    "only crowds": (
        lambda c: [a.update(iscrowd=1) for a in c["annotations"]],
        r"no usable image: of the .*; all \d+ annotations are crowds",
    ),
    "fractions": (
        lambda c: [a.update(bbox=[0.1, 0.1, 0.5, 0.5]) for a in c["annotations"]],
        r"no usable image: of the .*; all boxes lie within 0 and 1",
    ),
    "flat boxes": (
        lambda c: [a.update(bbox=[5, 5, 1, 5]) for a in c["annotations"]],
        r"no usable image: .* 0 are crowds and \d+ have a side of at most one pixel",
    ),
}


@pytest.mark.parametrize("case", list(TRAINING_SETS))
def test_a_training_set_that_cannot_be_used_says_why(
    cfg: CfgNode, demo: Path, tmp_path: Path, case: str
) -> None:
    change, message = TRAINING_SETS[case]
    with pytest.raises(DataError, match=message):
        train_plain(clone_with(cfg, ["DATASETS.TRAIN", (_edited(demo, tmp_path, "train", change),)]))


def test_data_that_is_not_tested_may_be_absent(cfg: CfgNode) -> None:
    _, summary = train_plain(clone_with(cfg, ["DATASETS.TEST", ("coco:none.json@nowhere",)]))
    assert summary.iterations == 1


def test_a_set_without_annotations_is_predicted_on(cfg: CfgNode, demo: Path, tmp_path: Path) -> None:
    name = _edited(demo, tmp_path, "val", lambda content: content.pop("annotations"))
    cfg = clone_with(cfg, ["DATASETS.TEST", (name,), "MODEL.ROI_HEADS.SCORE_THRESH", 0.0])
    report = test_plain(cfg, build_seeded_model(cfg))["val"]
    assert report.metrics == {} and report.unlabelled and len(report.detections)
    folder = Path(cfg.OUTPUT_DIR) / "inference" / "val"
    ids = {image["id"] for image in json.loads((demo / "val.json").read_text())["images"]}
    for task in ("bbox", "segm"):
        rows = json.loads((folder / f"{task}.json").read_text())
        assert rows and {row["image_id"] for row in rows} <= ids
    assert json.loads((folder / "metrics.json").read_text())["tasks"]["segm"]["metrics"] == {}
    assert len((folder / "per_class.csv").read_text().splitlines()) == 7
