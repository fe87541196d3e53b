"""Labels of a model on files that list its classes in another order, under other ids, or that have others."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.engine.predictor import stored_classes
from maskrcnn_benchmark.engine.train_and_test import (
    build_seeded_model,
    load_test_weights,
    test_plain,
    train_plain,
)
from maskrcnn_benchmark.evaluation.build import build_evaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json

Content = dict[str, Any]
Change = Callable[[Content], Any]


def reverse(content: Content) -> None:
    content["categories"].reverse()


def renumber(content: Content) -> None:
    for category in content["categories"]:
        category["id"] += 100
    for annotation in content["annotations"]:
        annotation["category_id"] += 100
    for image in content["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = [number + 100 for number in image.get(key, [])]


def rename(content: Content) -> None:
    content["categories"][1]["name"] = "unicorn"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`data(name, *changes)`: a data set as inline name; 12 images of 6 classes, its file changed."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    generate_demo(folder, DemoOptions(train=12, val=6, size=64, seed=0, classes=6), report=lambda text: None)

    def changed(name: str, *changes: Change) -> str:
        content = json.loads((folder / "train.json").read_text())
        for change in changes:
            change(content)
        (folder / f"{name}.json").write_text(json.dumps(content))
        return f"lvis:{folder}/{name}.json@{folder}/images/train"

    return changed


@pytest.fixture(scope="module")
def run(project_root: Path, data: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    """A short run that tests the same images twice in between: as trained, and with the classes reversed."""
    cfg = load_config(
        project_root / "tests" / "engine" / "tiny.yaml",
        [
            *("DATASETS.TRAIN", f"('{data('train')}',)"),
            *("DATASETS.TEST", f"('{data('train')}', '{data('reversed', reverse)}')"),
            *("OUTPUT_DIR", str(tmp_path_factory.mktemp("out"))),
            *("SOLVER.MAX_ITER", "90", "SOLVER.TEST_PERIOD", "60", "SOLVER.BASE_LR", "0.02"),
        ],
    )
    train_plain(cfg)
    return cfg


def trained(cfg: CfgNode) -> nn.Module:
    """The final model of the run, loaded as tools/test_net.py does."""
    model = build_seeded_model(cfg)
    load_test_weights(cfg, model, None)
    return model


def arrays(report: Any) -> list[Any]:
    return [(r.precision.tolist(), r.recall.tolist()) for r in (t.result for t in report.tasks.values())]


def test_periodic_testing_maps_the_order(run: CfgNode) -> None:
    rows = [json.loads(line) for line in (Path(run.OUTPUT_DIR) / "metrics.jsonl").read_text().splitlines()]
    values = next(row for row in rows if any(key.startswith("reversed/") for key in row))
    pairs = {key: key.replace("train/", "reversed/", 1) for key in values if key.startswith("train/")}
    assert len(pairs) > 20 and all(values[key] == values[other] for key, other in pairs.items())


def test_ap_is_equal_to_the_last_digit(run: CfgNode, data: Callable[..., str], tmp_path: Path) -> None:
    model = trained(run)
    sets = (data("train"), data("reversed", reverse), data("renumbered", renumber, reverse))
    # the training list of the config plays no part where the checkpoint has one
    reports = test_plain(
        clone_with(run, ["DATASETS.TEST", sets, "DATASETS.TRAIN", (data("odd", rename),)]), model, tmp_path
    )
    assert reports["train"].metrics["bbox/AP"] > 0
    assert arrays(reports["reversed"]) == arrays(reports["train"]) == arrays(reports["renumbered"])
    assert reports["reversed"].metrics == reports["train"].metrics == reports["renumbered"].metrics
    for file in ("bbox.json", "segm.json"):
        first = read_json(tmp_path / "train" / file, what="results")
        assert read_json(tmp_path / "reversed" / file, what="results") == first
        other = read_json(tmp_path / "renumbered" / file, what="results")
        assert [row["category_id"] - 100 for row in other] == [row["category_id"] for row in first]
    # what it would be without the list of the checkpoint
    model.class_list = None  # type: ignore[assignment]
    alone = clone_with(run, ["DATASETS.TEST", (sets[1],), "DATASETS.TRAIN", ()])
    assert test_plain(alone, model, tmp_path)["reversed"].metrics != reports["train"].metrics


def test_result_files_do_not_know_the_order(run: CfgNode, data: Callable[..., str], tmp_path: Path) -> None:
    test_plain(clone_with(run, ["DATASETS.TEST", (data("train"),)]), trained(run), tmp_path)
    contents = [
        json.loads(Path(data(name, *changes).partition(":")[2].partition("@")[0]).read_text())
        for name, changes in (("train", ()), ("reversed", (reverse,)))
    ]
    reports = []
    for content in contents:
        evaluator = build_evaluator(run, content, [0], kind="lvis")
        reports.append(evaluator.evaluate_detections(Detections.read(tmp_path / "train" / "segm.json")))
    assert arrays(reports[0]) == arrays(reports[1]) and reports[0].metrics == reports[1].metrics


def test_other_classes_are_refused_before_training_and_testing(
    run: CfgNode, data: Callable[..., str], tmp_path: Path
) -> None:
    odd = clone_with(run, ["DATASETS.TEST", (data("odd", rename),)])
    with pytest.raises(DataError, match=r"model_final\.pth \(6\) and .* label 2 is .* \| 2 'unicorn'"):
        test_plain(odd, trained(run), tmp_path)
    fresh = clone_with(odd, ["OUTPUT_DIR", str(tmp_path / "fresh")])
    with pytest.raises(DataError, match="'unicorn'.*DATASETS.TEST"):
        train_plain(fresh)
    assert not list((tmp_path / "fresh").glob("*.pth"))


def test_weights_without_a_list(
    run: CfgNode, data: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The training list of the config counts; without one the order of the file is taken, with a warning."""
    state = read_checkpoint(Path(run.OUTPUT_DIR) / "model_final.pth")["model"]
    save_atomic({"model": state}, tmp_path / "bare.pth")
    model = build_seeded_model(run)
    load_test_weights(run, model, str(tmp_path / "bare.pth"))
    sets = ["DATASETS.TEST", (data("train"), data("reversed", reverse))]
    reports = test_plain(clone_with(run, sets), model, tmp_path)
    assert reports["reversed"].metrics == reports["train"].metrics
    with caplog.at_level(logging.WARNING):
        alone = test_plain(clone_with(run, [*sets, "DATASETS.TRAIN", ("coco:no.json@no",)]), model, tmp_path)
    assert alone["train"].metrics == reports["train"].metrics != alone["reversed"].metrics
    assert [m for m in caplog.messages if "no.json" in m and "assumed to be in the order" in m]
    with pytest.raises(DataError, match=r"'unicorn'.*DATASETS\.TRAIN"):
        test_plain(clone_with(run, ["DATASETS.TEST", (data("odd", rename),)]), model, tmp_path)


def test_a_run_resumes_with_its_labels(run: CfgNode, data: Callable[..., str], tmp_path: Path) -> None:
    steps = {"whole": (4,), "resumed": (2, 4)}
    for name, ends in steps.items():
        for end in ends:
            file = data("reversed", reverse) if end == 4 and len(ends) > 1 else data("train")
            options = ["OUTPUT_DIR", str(tmp_path / name), "SOLVER.MAX_ITER", end, "SOLVER.STEPS", (9,)]
            train_plain(clone_with(run, [*options, "DATASETS.TRAIN", (file,), "DATASETS.TEST", ()]))
    one, other = (read_checkpoint(tmp_path / name / "model_final.pth") for name in steps)
    assert one["classes"] == other["classes"] and one["label_to_category"] == other["label_to_category"]
    assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])
    odd = ["OUTPUT_DIR", str(tmp_path / "whole"), "DATASETS.TRAIN", (data("odd", rename),)]
    odd += ["DATASETS.TEST", ()]
    with pytest.raises(DataError, match="holds a run of another class list.*use another OUTPUT_DIR"):
        train_plain(clone_with(run, odd))


def test_start_weights_of_another_order_are_noticed(
    run: CfgNode, data: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = str(Path(run.OUTPUT_DIR) / "model_final.pth")
    options = ["OUTPUT_DIR", str(tmp_path), "MODEL.WEIGHT", weights]
    options += ["SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()]
    with caplog.at_level(logging.WARNING):
        train_plain(clone_with(run, options))
        assert not [m for m in caplog.messages if "other classes" in m]
        other = [*options, "OUTPUT_DIR", str(tmp_path / "b"), "DATASETS.TRAIN", (data("reversed", reverse),)]
        train_plain(clone_with(run, other))
    assert [m for m in caplog.messages if "trained on other classes or another order of them: label 1" in m]


def test_names_for_prediction(run: CfgNode, tmp_path: Path) -> None:
    weights = Path(run.OUTPUT_DIR) / "model_final.pth"
    names, ids = stored_classes(str(weights), 7)
    stored = read_checkpoint(weights)
    assert (names, ids) == (stored["classes"], stored["label_to_category"])
    assert stored_classes(str(weights), 3) == (["0", "1", "2"], [0, 1, 2])
