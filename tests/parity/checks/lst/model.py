"""Checks of the LST predictor, its losses, distillation, weight transfer and proposal sampling."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.checker import Checker
from checks.fill import fill_module, noise_tensor
from checks.store import read_pair
from maskrcnn_benchmark.incremental.distillation.json_files import export_published, import_published
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, DistillStore
from maskrcnn_benchmark.modeling.distill import distillation_loss
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.roi_heads.box_head.extractors import FPN2MLPCosineFeatureExtractor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import box_losses
from maskrcnn_benchmark.modeling.roi_heads.box_head.predictors import FPNCosinePredictor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.predictors import MaskXRCNNC4Predictor
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import build_weight_transfer
from maskrcnn_benchmark.modeling.samplers import keep_query_class, subsample_labels
from maskrcnn_benchmark.utils.files import read_json

NOISE = "lst/golden/"
BOX, MASK = "roi_heads.box.predictor.", "roi_heads.mask.predictor."
POOL, CHANNELS, SMALL_CHANNELS, SCALE = 7, 256, 16, 10.0
Arrays = dict[str, np.ndarray]


def check_model(folder: Path, checker: Checker, *, fast: bool) -> None:
    """Everything in `model.json`/`model.npz`; `fast` leaves out the layer of 157 million parameters."""
    info, arrays = read_pair(folder, "model")
    prefix = info.get("noise_prefix", NOISE)
    with checker.section("model"):
        _check_samplers(info, checker)
        rows, width = arrays["distill_grad_features"].shape
        features = noise_tensor(f"{prefix}student_features", (rows, width))
        student = _predictor(width, arrays["scores"].shape[1])
        _check_extractor(arrays, prefix, width, checker)
        _check_losses(student, features, info, arrays, prefix, checker)
        with checker.section("distill"):
            teacher = _check_teacher(folder, arrays, features, prefix, checker)
            _check_distillation(student, features, teacher, arrays, checker)
        _check_masks(student, info, arrays, prefix, checker, fast=fast)


def _predictor(width: int, outputs: int) -> FPNCosinePredictor:
    """Filled by name, then the scale set to its usual start."""
    predictor = FPNCosinePredictor(width, outputs, initial_scale=SCALE)
    fill_module(predictor, prefix=BOX)
    with torch.no_grad():
        predictor.scale_cls.fill_(SCALE)
    return predictor


def _check_samplers(info: dict[str, Any], checker: Checker) -> None:
    for number, case in enumerate(info["sampler_cases"]):
        positive, negative = [], []
        for labels, query_class in zip(case["matched_labels"], case["class_ids"], strict=True):
            wanted = query_class if case["stage"] == "box" else 0
            usable = keep_query_class(torch.tensor(labels), wanted)
            found = subsample_labels(usable, case["batch_size_per_image"], case["positive_fraction"])
            positive.append(found[0].tolist())
            negative.append(found[1].tolist())
        checker.same(f"sampler{number}.positive", positive, case["positive"])
        checker.same(f"sampler{number}.negative", negative, case["negative"])


def _check_extractor(arrays: Arrays, prefix: str, width: int, checker: Checker) -> None:
    extractor = FPN2MLPCosineFeatureExtractor(CHANNELS, Pooler(POOL, (0.25,), 2), width)
    fill_module(extractor, prefix="roi_heads.box.feature_extractor.")
    pooled = noise_tensor(f"{prefix}pooled", (len(arrays["box_feature"]), CHANNELS, POOL, POOL))
    with torch.no_grad():
        checker.close("box_feature", extractor.embed(pooled), arrays["box_feature"])


def _check_losses(
    student: FPNCosinePredictor,
    features: Tensor,
    info: dict[str, Any],
    arrays: Arrays,
    prefix: str,
    checker: Checker,
) -> None:
    source = features.clone().requires_grad_()
    scores, deltas = student(source)
    checker.close("scores", scores, arrays["scores"])
    checker.close("bbox_deltas", deltas, arrays["bbox_deltas"])
    targets = noise_tensor(f"{prefix}reg_targets", (len(features), 4))
    losses = mean_losses(box_losses(scores, deltas, torch.tensor(info["labels"]), targets))
    for name, loss in losses.items():
        checker.close(name, loss, arrays[name])
    of_features, of_scale = torch.autograd.grad(
        sum(losses.values(), torch.zeros(())), [source, student.scale_cls]
    )
    checker.close("loss_grad_features", of_features, arrays["loss_grad_features"])
    checker.close("loss_grad_scale", of_scale, arrays["loss_grad_scale"])


def _check_teacher(folder: Path, arrays: Arrays, features: Tensor, prefix: str, checker: Checker) -> Tensor:
    """Teacher rows of the stored boxes, read through our store; the flip of an image is the one that
    fits.
    """
    expected = arrays["teacher_cosine"]
    delta = noise_tensor(f"{prefix}teacher_delta", features.shape)
    teacher = _predictor(features.shape[1], expected.shape[1])
    with torch.no_grad():
        checker.close("teacher_cosine", teacher.cosine(features + 0.3 * delta), expected)
    path = folder / "distill_logits.json"
    content = read_json(path, what="distillation file")
    ids = {int(image): list(range(len(rows))) for image, rows in content[0].items()}
    header = DistillHeader(1, expected.shape[1] - 1, "", "", (0, 0), (0, 1), "float32")
    with tempfile.TemporaryDirectory() as scratch:
        store = import_published(path, Path(scratch) / "store", header, ids)
        export_published(store, Path(scratch) / "back.json")
        checker.same("json_round_trip", read_json(Path(scratch) / "back.json"), content)
        chosen = _choose_flips(store, ids, expected)
    checker.close("stored_rows", np.concatenate(chosen), expected)
    return torch.from_numpy(np.concatenate(chosen))


def _choose_flips(store: DistillStore, ids: dict[int, list[int]], expected: np.ndarray) -> list[np.ndarray]:
    """Per image, in file order, the stored rows (of either flip) that are nearer to the expected ones."""
    chosen: list[np.ndarray] = []
    start = 0
    for image, rows in ids.items():
        wanted = expected[start : start + len(rows)]
        flips = [np.array(store.rows(image, flip).cosines, np.float32) for flip in (0, 1)]
        chosen.append(min(flips, key=lambda found: float(np.abs(found - wanted).max())))
        start += len(rows)
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


def _mask_predictor(channels: int, side: int | None) -> MaskXRCNNC4Predictor:
    predictor = MaskXRCNNC4Predictor(channels, hidden=channels, mask_side=side)
    fill_module(predictor, prefix=MASK)
    return predictor


def _check_masks(
    student: FPNCosinePredictor,
    info: dict[str, Any],
    arrays: Arrays,
    prefix: str,
    checker: Checker,
    *,
    fast: bool,
) -> None:
    weight = student.cls_score.weight
    transfer = build_weight_transfer(weight.shape[1], CHANNELS)
    fill_module(transfer, prefix="roi_heads.bbox2mask.")
    rows = transfer(weight)
    checker.close("mask_weights", rows, arrays["mask_weights"])
    count, classes, side, _ = arrays["small_mask_logits"].shape
    small = noise_tensor(f"{prefix}small_mask_features", (count, SMALL_CHANNELS, side // 2, side // 2))
    small_rows = 0.2 * noise_tensor(f"{prefix}small_mask_weights", (classes, SMALL_CHANNELS))
    labels = torch.arange(count) % classes
    for name, mask_side in (("small_mask_logits", side), ("small_mask_logits_without_mlp", None)):
        predictor = _mask_predictor(SMALL_CHANNELS, mask_side)
        with torch.no_grad():
            checker.close(name, predictor.all_logits(small, small_rows), arrays[name])
            one = predictor(small, labels, small_rows[labels])
        checker.close(f"{name}.one_channel", one, arrays[name][np.arange(count), labels.numpy()])
    count, _, side, _ = info["mask_logits_shape"]
    features = noise_tensor(f"{prefix}mask_features", (count, CHANNELS, side // 2, side // 2))
    plain = _mask_predictor(CHANNELS, None)
    (gradient,) = torch.autograd.grad(plain.all_logits(features, rows)[:, 1].mean(), [weight])
    checker.close("mask_to_cls_score_grad", gradient.norm(dim=1), arrays["mask_to_cls_score_grad_row_l2"])
    if fast:
        checker.skipped("mask_logits", "157 million parameters; run without --fast")
        return
    with torch.no_grad():
        logits = _mask_predictor(CHANNELS, side).all_logits(features, rows)
    checker.equal("mask_logits.shape", list(logits.shape), info["mask_logits_shape"])
    checker.close("mask_logits_strided", logits[:, :, ::4, ::4], arrays["mask_logits_strided"])
    values = logits.double()
    got = [float(values.mean()), float(values.std(unbiased=False)), float(values.abs().max())]
    checker.close("mask_logits.stats", got, info["mask_logits_stats_mean_std_absmax"])
