"""Class weights of new classes from training boxes: sampling, features, means, the trained generator."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.engine.train_and_test import build_seeded_model
from maskrcnn_benchmark.incremental.growth import box_features
from maskrcnn_benchmark.incremental.growth.classifier_init import (
    feature_mean_weights,
    generated_weights,
    init_class_weights,
    train_weight_generator,
)
from maskrcnn_benchmark.incremental.pipeline import prepare
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import PLAN_FILE
from maskrcnn_benchmark.incremental.plan.split import plan_from_cfg
from maskrcnn_benchmark.modeling.roi_heads.box_head.predictors import FPNCosinePredictor, MetaWeightGenerator
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import sha256_file, write_json

OPTIONS: dict[str, Any] = {"episodes": 150, "max_classes": 4, "max_shots": 3, "lr": 0.01}


def toy(num_classes: int, per_class: int, loudness: float = 8.0) -> tuple[dict[int, Tensor], Tensor]:
    """Features by label 1.. around one direction per class, and these directions (background first).

    Six channels, louder by `loudness`, hold nothing but noise: a mean of few features is misled by them, a
    learned diagonal is not.
    """
    source = torch.Generator().manual_seed(0)
    centers = torch.randn(num_classes + 1, 24, generator=source)
    centers[:, :6] = 0.0
    features = {}
    for label in range(1, num_classes + 1):
        noise = 0.6 * torch.randn(per_class, 24, generator=source)
        noise[:, :6] *= loudness
        features[label] = centers[label] + noise
    return features, centers


def accuracy(rows: dict[int, Tensor], features: dict[int, Tensor], old: Tensor) -> float:
    """Fraction of the features of new labels that a cosine classifier with old and new weights gets right."""
    weights = torch.cat([old, torch.stack([rows[label] for label in sorted(rows)])])
    right = [
        (F.normalize(features[label], dim=1) @ F.normalize(weights, dim=1).t()).argmax(dim=1) == label
        for label in rows
    ]
    return torch.cat(right).float().mean().item()


def test_feature_means_recognise_new_classes_before_training() -> None:
    """Feature means classify new classes at once, random weights do not; their norm is the mean old norm."""
    features, centers = toy(12, 40, loudness=1.0)
    old = 0.3 * centers[:9]
    new = {label: features[label][:20] for label in range(9, 13)}
    unseen = {label: features[label][20:] for label in range(9, 13)}
    rows = feature_mean_weights(new, old)
    drawn = {label: 0.01 * torch.randn(24) for label in new}
    assert accuracy(rows, unseen, old) > accuracy(drawn, unseen, old) + 0.4
    for row in rows.values():
        assert row.norm().item() == pytest.approx(old[1:].norm(dim=1).mean().item(), rel=1e-5)


def test_the_generator_learns_from_old_classes() -> None:
    """Generated weights from few boxes beat their means, and the same seed gives the same generator."""
    features, centers = toy(40, 30)
    old, known = centers[:31], {label: features[label] for label in range(1, 31)}
    source = torch.Generator().manual_seed(1)
    generator = train_weight_generator(known, old, 10.0, source, **OPTIONS)
    few = {label: features[label][:2] for label in range(31, 41)}
    unseen = {label: features[label][2:] for label in range(31, 41)}
    trained = accuracy(generated_weights(few, old, generator), unseen, old)
    mean = accuracy(feature_mean_weights(few, old), unseen, old)
    assert trained > mean + 0.05
    again = train_weight_generator(known, old, 10.0, torch.Generator().manual_seed(1), **OPTIONS)
    for name, value in generator.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_generator_needs_classes_to_learn_from() -> None:
    features = {1: torch.randn(5, 4), 2: torch.randn(1, 4)}
    with pytest.raises(DataError, match=r"two training boxes or more, of which there are 1; use"):
        train_weight_generator(features, torch.randn(3, 4), 10.0, torch.Generator(), **OPTIONS)
    two = {1: torch.randn(2, 4), 2: torch.randn(2, 4)}
    made = train_weight_generator(two, torch.randn(3, 4), 10.0, torch.Generator(), **OPTIONS)
    assert isinstance(made, MetaWeightGenerator)


def test_a_class_without_a_box_keeps_its_random_weight(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("maskrcnn_benchmark"), "propagate", True)
    cfg = clone_with(tiny_cfg, ["LST.GROW.INIT", "feature_mean"])
    predictor = FPNCosinePredictor(4, 3, initial_scale=10.0)
    weights = init_class_weights(predictor, {3: torch.randn(2, 4)}, range(3, 5), cfg, torch.Generator())
    assert list(weights) == [3] and "no usable training box of new labels [4]" in caplog.text


def test_sampled_boxes(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    """At most the limit per class, no degenerate ones, the same for the same seed, all images named."""
    annotations = golden["lvis_mini_train"]["annotations"]
    by_id = {a["id"]: a for a in annotations}
    labels = mini_plan.new_labels(1)
    boxes, images = box_features.sample_boxes(annotations, mini_plan, labels, 2, seed=5)
    assert set(boxes.values()) <= set(labels) and max(Counter(boxes.values()).values()) == 2
    for annotation, label in boxes.items():
        assert by_id[annotation]["category_id"] == mini_plan.classes[label - 1].category_id
        assert min(by_id[annotation]["bbox"][2:]) > 1
    assert images == sorted({by_id[a]["image_id"] for a in boxes})
    assert box_features.sample_boxes(annotations, mini_plan, labels, 2, seed=5) == (boxes, images)
    every, _ = box_features.sample_boxes(annotations, mini_plan, labels, 10**6, seed=5)
    assert set(boxes) < set(every)


@pytest.fixture
def job(tiny_cfg: CfgNode) -> tuple[RunContext, PhasePlan]:
    """A run whose base phase holds an untrained model."""
    run_dir = Path(tiny_cfg.OUTPUT_DIR)
    task = RunContext(tiny_cfg, run_dir, PhaseData(tiny_cfg), sha256_file)
    plan = plan_from_cfg(tiny_cfg, task.data.train.outline)
    write_json(run_dir / PLAN_FILE, plan.to_json())
    model = build_seeded_model(task.phase_cfg(plan, 0))
    run_dir.joinpath("phase_0").mkdir(parents=True)
    state = {"model": model.state_dict(), "classes": plan.names(0)}
    torch.save(state, run_dir / "phase_0" / "model_final.pth")
    return task, plan


@pytest.mark.parametrize("init", ["feature_mean", "meta"])
def test_weights_do_not_depend_on_the_number_of_ranks(
    job: tuple[RunContext, PhasePlan], monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    task, plan = job
    more = ["LST.GROW.INIT", init, "LST.GROW.BOXES_PER_CLASS", 4, "LST.GROW.META.EPISODES", 3]
    task = RunContext(clone_with(task.cfg, more), task.run_dir, task.data, task.file_hash)
    alone = prepare._class_weights_from_data(task, plan, 1)
    assert list(alone) == list(plan.new_labels(1)) and all(row.shape == (32,) for row in alone.values())
    shares: list[dict] = []
    gather: Callable[[dict], list[dict]] = lambda mine: shares.append(mine) or list(shares)  # noqa: E731
    monkeypatch.setattr(box_features, "all_gather_objects", gather)
    monkeypatch.setattr(prepare, "get_world_size", lambda: 2)
    for rank in (1, 0):  # the main process gathers last and so sees both shares
        monkeypatch.setattr(prepare, "get_rank", lambda rank=rank: rank)
        shared = prepare._class_weights_from_data(task, plan, 1)
    assert all(len(share) for share in shares) and not set(shares[0]) & set(shares[1])
    assert all(torch.equal(shared[label], row) for label, row in alone.items())


def test_grown_checkpoint_holds_the_weights(job: tuple[RunContext, PhasePlan]) -> None:
    task, plan = job
    name = "roi_heads.box.predictor.cls_score.weight"
    made = {}
    for init in ("normal", "feature_mean"):
        cfg = clone_with(task.cfg, ["LST.GROW.INIT", init])
        task = RunContext(cfg, task.run_dir, task.data, task.file_hash)
        prepare.grow_classifier(task, plan, 1)
        made[init] = torch.load(task.run_dir / "phase_1" / "init.pth", weights_only=True)["model"]
    old = made["normal"][name][:13]
    assert torch.equal(made["feature_mean"][name][:13], old)
    norms = made["feature_mean"][name][13:].norm(dim=1)
    assert torch.allclose(norms, old[1:].norm(dim=1).mean().expand(6), rtol=1e-4)
    assert not torch.equal(made["feature_mean"][name][13:], made["normal"][name][13:])
    assert json.loads((task.run_dir / PLAN_FILE).read_text())["sizes"] == [12, 6, 6]
