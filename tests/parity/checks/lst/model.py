"""Checks of the LST predictor, its losses, distillation, weight transfer and proposal sampling."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checks.checker import Checker
from checks.fill import fill_module, noise_tensor
from checks.noise_text import noise_prefix
from checks.store import read_pair
from maskrcnn_benchmark.incremental.distillation.json_files import export_logits, import_logits
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, DistillStore
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.roi_heads.box_head.extractors import FPN2MLPCosineFeatureExtractor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import box_losses, distillation_loss
from maskrcnn_benchmark.modeling.roi_heads.box_head.predictors import FPNCosinePredictor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.predictors import MaskXRCNNC4Predictor
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import build_weight_transfer
from maskrcnn_benchmark.modeling.samplers import keep_query_class, subsample_labels
from maskrcnn_benchmark.utils.files import read_json

BOX, MASK = "roi_heads.box.predictor.", "roi_heads.mask.predictor."
POOL, CHANNELS, SMALL_CHANNELS, SCALE = 7, 256, 16, 10.0
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Reference:
    """`model.json` and `model.npz`, and what begins the names of its noise and of its weights."""

    info: dict[str, Any]
    arrays: Arrays
    noise_prefix: str
    weight_prefix: str

    def noise(self, name: str, shape: Sequence[int]) -> Tensor:
        """Noise of `shape` under the prefix of the file."""
        return noise_tensor(self.noise_prefix + name, shape)

    def fill(self, module: nn.Module, prefix: str) -> None:
        """Fill a module that is called `prefix` in the model."""
        fill_module(module, prefix=self.weight_prefix + prefix)


def check_model(path: Path, checker: Checker) -> None:
    """Everything in `model.json` and `model.npz`; a fast checker leaves out 157 million parameters."""
    info, arrays = read_pair(path)
    reference = _Reference(info, arrays, noise_prefix(path, info, "lst"), info.get("weight_prefix", ""))
    with checker.section("model"):
        _check_samplers(info, checker)
        count, width = arrays["distill_grad_features"].shape
        features = reference.noise("student_features", (count, width))
        student = _predictor(reference, width, arrays["scores"].shape[1])
        _check_extractor(reference, width, checker)
        _check_losses(student, features, reference, checker)
        with checker.section("distill"):
            teacher = _check_teacher(path.parent, reference, features, checker)
            _check_distillation(student, features, teacher, arrays, checker)
        _check_masks(student, reference, checker)


def _predictor(reference: _Reference, width: int, outputs: int) -> FPNCosinePredictor:
    """Box predictor filled by name, then the scale set to its usual start."""
    predictor = FPNCosinePredictor(width, outputs, initial_scale=SCALE)
    reference.fill(predictor, BOX)
    with torch.no_grad():
        predictor.scale_cls.fill_(SCALE)
    return predictor


def _check_samplers(info: dict[str, Any], checker: Checker) -> None:
    for number, case in enumerate(info["sampler_cases"]):
        positive, negative = [], []
        for labels, query_class in zip(case["matched_labels"], case["class_ids"], strict=True):
            only = query_class if case["stage"] == "box" else 0
            usable = keep_query_class(torch.tensor(labels), only)
            sampled = subsample_labels(usable, case["batch_size_per_image"], case["positive_fraction"])
            positive.append(sampled[0].tolist())
            negative.append(sampled[1].tolist())
        checker.same(f"sampler{number}.positive", positive, case["positive"])
        checker.same(f"sampler{number}.negative", negative, case["negative"])


def _check_extractor(reference: _Reference, width: int, checker: Checker) -> None:
    arrays = reference.arrays
    extractor = FPN2MLPCosineFeatureExtractor(CHANNELS, Pooler(POOL, (0.25,), 2), width)
    reference.fill(extractor, "roi_heads.box.feature_extractor.")
    pooled = reference.noise("pooled", (len(arrays["box_feature"]), CHANNELS, POOL, POOL))
    with torch.no_grad():
        checker.close("box_feature", extractor.embed(pooled), arrays["box_feature"])


def _check_losses(
    student: FPNCosinePredictor, features: Tensor, reference: _Reference, checker: Checker
) -> None:
    arrays = reference.arrays
    source = features.clone().requires_grad_()
    scores, deltas = student(source)
    checker.close("scores", scores, arrays["scores"])
    checker.close("bbox_deltas", deltas, arrays["bbox_deltas"])
    targets = reference.noise("reg_targets", (len(features), 4))
    losses = mean_losses(box_losses(scores, deltas, torch.tensor(reference.info["labels"]), targets))
    for name, loss in losses.items():
        checker.close(name, loss, arrays[name])
    of_features, of_scale = torch.autograd.grad(
        sum(losses.values(), torch.zeros(())), [source, student.scale_cls]
    )
    checker.close("loss_grad_features", of_features, arrays["loss_grad_features"])
    checker.close("loss_grad_scale", of_scale, arrays["loss_grad_scale"])


def _check_teacher(folder: Path, reference: _Reference, features: Tensor, checker: Checker) -> Tensor:
    """Teacher cosines of the stored boxes (N, old classes + 1), read through our store; the flip of an image
    is the one that fits.
    """
    expected = reference.arrays["teacher_cosine"]
    delta = reference.noise("teacher_delta", features.shape)
    teacher = _predictor(reference, features.shape[1], expected.shape[1])
    with torch.no_grad():
        checker.close("teacher_cosine", teacher.cosine(features + 0.3 * delta), expected)
    path = folder / "distill_logits.json"
    content = read_json(path, what="distillation file")
    ids = {int(image): list(range(len(cosines))) for image, cosines in content[0].items()}
    header = DistillHeader(1, expected.shape[1] - 1, "", "", (0, 0), (0, 1), "float32")
    with tempfile.TemporaryDirectory() as scratch:
        store = import_logits(path, Path(scratch) / "store", header, ids)
        export_logits(store, Path(scratch) / "back.json")
        checker.same("json_round_trip", read_json(Path(scratch) / "back.json"), content)
        chosen = _choose_flips(store, ids, expected)
    checker.close("stored_rows", np.concatenate(chosen), expected)
    return torch.from_numpy(np.concatenate(chosen))


def _choose_flips(store: DistillStore, ids: dict[int, list[int]], expected: np.ndarray) -> list[np.ndarray]:
    """Per image, in file order, the stored cosines of the flip that is nearer to the expected ones."""
    chosen: list[np.ndarray] = []
    start = 0
    for image, indices in ids.items():
        target = expected[start : start + len(indices)]
        flips = [np.array(store.read(image, flip).cosines, np.float32) for flip in (0, 1)]
        chosen.append(flips[int(np.argmin([np.abs(cosines - target).max() for cosines in flips]))])
        start += len(indices)
    return chosen


def _check_distillation(
    student: FPNCosinePredictor, features: Tensor, teacher: Tensor, arrays: Arrays, checker: Checker
) -> None:
    source = features.clone().requires_grad_()
    loss = distillation_loss(student.cosine(source), teacher, teacher.shape[1] - 1).mean()
    checker.close("loss", loss, arrays["distill_loss"])
    weight = student.cls_score.weight
    of_features, of_rows, of_scale = torch.autograd.grad(
        loss, [source, weight, student.scale_cls], allow_unused=True
    )
    checker.close("grad_features", of_features, arrays["distill_grad_features"])
    checker.close("grad_cls_score_rows_l2", of_rows.norm(dim=1), arrays["distill_grad_cls_score_rows_l2"])
    columns = arrays["distill_grad_cls_score_cols_0_32"]
    checker.close("grad_cls_score_cols", of_rows[:, : columns.shape[1]], columns)
    checker.same("grad_scale_is_none", of_scale is None, True)


def _mask_predictor(reference: _Reference, channels: int, side: int | None) -> MaskXRCNNC4Predictor:
    predictor = MaskXRCNNC4Predictor(channels, hidden=channels, mask_side=side)
    reference.fill(predictor, MASK)
    return predictor


def _check_masks(student: FPNCosinePredictor, reference: _Reference, checker: Checker) -> None:
    arrays, weight = reference.arrays, student.cls_score.weight
    transfer = build_weight_transfer(weight.shape[1], CHANNELS)
    reference.fill(transfer, "roi_heads.bbox2mask.")
    mask_weights = transfer(weight)
    checker.close("mask_weights", mask_weights, arrays["mask_weights"])
    _check_small_masks(reference, checker)
    count, _, side, _ = reference.info["mask_logits_shape"]
    features = reference.noise("mask_features", (count, CHANNELS, side // 2, side // 2))
    plain = _mask_predictor(reference, CHANNELS, None)
    (gradient,) = torch.autograd.grad(plain.all_logits(features, mask_weights)[:, 1].mean(), [weight])
    checker.close("mask_to_cls_score_grad", gradient.norm(dim=1), arrays["mask_to_cls_score_grad_row_l2"])
    if checker.fast:
        checker.skipped("mask_logits", "157 million parameters; run without --fast")
        return
    with torch.no_grad():
        logits = _mask_predictor(reference, CHANNELS, side).all_logits(features, mask_weights)
    checker.equal("mask_logits.shape", list(logits.shape), reference.info["mask_logits_shape"])
    checker.close("mask_logits_strided", logits[:, :, ::4, ::4], arrays["mask_logits_strided"])
    values = logits.double()
    got = [float(values.mean()), float(values.std(unbiased=False)), float(values.abs().max())]
    checker.close("mask_logits.stats", got, reference.info["mask_logits_stats_mean_std_absmax"])


def _check_small_masks(reference: _Reference, checker: Checker) -> None:
    """The mask predictor of few channels, with and without its MLP, all classes and one per detection."""
    arrays = reference.arrays
    count, classes, side, _ = arrays["small_mask_logits"].shape
    features = reference.noise("small_mask_features", (count, SMALL_CHANNELS, side // 2, side // 2))
    weights = 0.2 * reference.noise("small_mask_weights", (classes, SMALL_CHANNELS))
    labels = torch.arange(count) % classes
    for name, mask_side in (("small_mask_logits", side), ("small_mask_logits_without_mlp", None)):
        predictor = _mask_predictor(reference, SMALL_CHANNELS, mask_side)
        with torch.no_grad():
            checker.close(name, predictor.all_logits(features, weights), arrays[name])
            one = predictor(features, labels, weights[labels])
        checker.close(f"{name}.one_channel", one, arrays[name][np.arange(count), labels.numpy()])
