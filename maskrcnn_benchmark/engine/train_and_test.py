"""Training and testing of one phase, driven by the config alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.checkpointer import last_checkpoint
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.config.catalog import resolve_dataset, resolve_weight
from maskrcnn_benchmark.config.models import class_count, class_count_key
from maskrcnn_benchmark.data.build import (
    AnyDataset,
    build_dataset,
    build_test_loader,
    build_train_dataset,
    build_train_loader,
)
from maskrcnn_benchmark.data.datasets.images import image_name
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.engine.data_check import check_test_set, check_test_sets, check_training_set
from maskrcnn_benchmark.engine.inference import inference
from maskrcnn_benchmark.engine.launch import rank_device
from maskrcnn_benchmark.engine.model_classes import (
    check_test_classes,
    known_classes,
    resumed_order,
    tested_order,
)
from maskrcnn_benchmark.engine.train import TrainSummary, train
from maskrcnn_benchmark.evaluation.build import build_evaluator
from maskrcnn_benchmark.evaluation.report import EvaluationReport, format_evaluation
from maskrcnn_benchmark.modeling.detectors.augmented import model_for_testing
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import write_json
from maskrcnn_benchmark.utils.rng import seed_all
from maskrcnn_benchmark.utils.run_lock import lock_run_folder

_LOG = logging.getLogger(__name__)


def build_seeded_model(cfg: CfgNode) -> nn.Module:
    """Build the model of `cfg` with initial weights that depend on cfg.SEED alone."""
    seed_all(cfg.SEED, "model")
    return build_detection_model(cfg)


def check_class_count(cfg: CfgNode, dataset: AnyDataset, name: str) -> None:
    """Raise ConfigError unless NUM_CLASSES is the number of the data set's categories plus background."""
    num_keypoints, configured = len(dataset.keypoint_names), cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES
    if cfg.MODEL.KEYPOINT_ON and num_keypoints and num_keypoints != configured:
        raise ConfigError(
            f"MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES is {configured}, but data set {name} has {num_keypoints} "
            f"keypoints: set MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES {num_keypoints}"
        )
    expected, actual, key = len(dataset.class_names), class_count(cfg), class_count_key(cfg)
    if actual is not None and expected != actual:
        raise ConfigError(
            f"{key} is {actual}, but data set {name} has {expected - 1} categories (+ 1 background): "
            f"set {key} {expected}"
        )


def write_labels(folder: Path, dataset: AnyDataset) -> None:
    """Write `labels.json`: category id to name."""
    pairs = zip(dataset.label_to_category[1:], dataset.class_names[1:], strict=True)
    write_json(folder / "labels.json", {str(category): name for category, name in pairs}, indent=2)


def train_plain(cfg: CfgNode, *, tested_after: bool = False) -> tuple[nn.Module, TrainSummary]:
    """Train on DATASETS.TRAIN into OUTPUT_DIR, evaluating DATASETS.TEST every SOLVER.TEST_PERIOD.

    `tested_after`: the caller tests the model, so that DATASETS.TEST is checked now. Raises ConfigError when
    another run uses OUTPUT_DIR.
    """
    with lock_run_folder(cfg.OUTPUT_DIR, below=("validation", "inference")):
        return _train_plain(cfg, tested_after)


def _train_plain(cfg: CfgNode, tested_after: bool) -> tuple[nn.Module, TrainSummary]:
    dataset = build_train_dataset(cfg, resumed_order(cfg))
    total = cfg.SOLVER.MAX_ITER * cfg.SOLVER.ACCUMULATION_STEPS
    return train_on(
        cfg,
        dataset,
        lambda done: build_train_loader(cfg, dataset, start_iter=done, num_iters=total - done),
        tested_after=tested_after,
    )


def train_on(
    cfg: CfgNode,
    dataset: AnyDataset,
    make_batches: Callable[[int], Iterable[Batch]],
    *,
    distill: Callable[[Batch], StoredLogits] | None = None,
    category_order: Sequence[int] | None = None,
    tested_after: bool = False,
) -> tuple[nn.Module, TrainSummary]:
    """Train on batches of `dataset` as `train_plain` does.

    Args:
        make_batches: see `train`. distill: stored teacher outputs for a batch.
        category_order: category ids by label for the data sets of DATASETS.TEST; None takes their own order.
        tested_after: see `train_plain`.

    Raises DataError before anything is trained when images are missing, and for test sets that testing would
    refuse.
    """
    check_class_count(cfg, dataset, " + ".join(cfg.DATASETS.TRAIN))
    comm.on_main(lambda: check_training_set(cfg, dataset))
    if tested_after or cfg.SOLVER.TEST_PERIOD > 0:
        check_test_classes(cfg, dataset.class_list, subset=category_order is not None)
        comm.on_main(lambda: check_test_sets(cfg, category_order))
    comm.on_main(lambda: write_labels(Path(cfg.OUTPUT_DIR), dataset))
    model = build_seeded_model(cfg)
    model.class_list = dataset.class_list  # type: ignore[assignment]

    def evaluate(current: nn.Module, iteration: int) -> dict[str, float]:
        folder = Path(cfg.OUTPUT_DIR) / "validation" / f"{iteration:07d}"
        reports = test_plain(cfg, current, folder, category_order)
        return {f"{name}/{key}": v for name, r in reports.items() for key, v in r.metrics.items()}

    summary = train(
        cfg,
        model,
        make_batches,
        output_dir=cfg.OUTPUT_DIR,
        max_iter=cfg.SOLVER.MAX_ITER,
        evaluate=evaluate if cfg.DATASETS.TEST else None,
        distill=distill,
        classes=dataset.class_names,
        extra_meta={"label_to_category": list(dataset.label_to_category)},
        image_name=lambda index: image_name(dataset.get_img_info(index)),
    )
    return model, summary


def load_test_weights(cfg: CfgNode, model: nn.Module, ckpt: str | None) -> str:
    """Load `ckpt`, else the last checkpoint in OUTPUT_DIR, else MODEL.WEIGHT; return the path of the file.

    Raises ConfigError when there is none of the three, CheckpointError for a file of another model.
    """
    last = last_checkpoint(cfg.OUTPUT_DIR)
    path = ckpt or (str(last) if last is not None else cfg.MODEL.WEIGHT)
    if not path:
        raise ConfigError(
            f"no weights to test: {cfg.OUTPUT_DIR} holds no checkpoint; give --ckpt FILE or MODEL.WEIGHT FILE"
        )
    _LOG.info("testing %s", path)
    load_weights(model, resolve_weight(cfg, path), conv_body=cfg.MODEL.BACKBONE.CONV_BODY, complete=True)
    return path


def test_plain(
    cfg: CfgNode,
    model: nn.Module,
    folder: Path | None = None,
    category_order: Sequence[int] | None = None,
) -> dict[str, EvaluationReport]:
    """Evaluate `model` on every data set of DATASETS.TEST; the reports by name. Collective over ranks.

    Args:
        folder: where rank 0 writes `<data set>/{metrics.json,per_class.csv}` and the result files of the
            protocol (`Evaluator.write`); defaults to `OUTPUT_DIR/inference`.
        category_order: category ids by label; None takes those of the model (`known_classes`), mapped to each
            data set.

    The kind of the data decides on the protocol (`build_evaluator`). With TEST.BBOX_AUG.ENABLED every image
    is tested in several views. TEST.EXPECTED_RESULTS are compared with the last data set, and the outcome is
    logged. Raises ConfigError for an empty DATASETS.TEST and for two data sets of one name, DataError for a
    data set of other classes than the model's.
    """
    if not cfg.DATASETS.TEST:
        raise ConfigError(
            "DATASETS.TEST is empty: name a data set, or give one as 'coco:annotations.json@images'"
        )
    device = rank_device(cfg.MODEL.DEVICE)
    tested = model_for_testing(cfg, model.to(device))
    folder = folder or Path(cfg.OUTPUT_DIR) / "inference"
    classes = known_classes(cfg, model) if category_order is None else getattr(model, "class_list", None)
    reports: dict[str, EvaluationReport] = {}
    for name in cfg.DATASETS.TEST:
        spec = resolve_dataset(cfg, name)
        if spec.name in reports:
            raise ConfigError(
                f"DATASETS.TEST has two sets called {spec.name}; name them in DATASETS.REGISTER"
            )
        annotations = load_annotations(spec)
        order = tested_order(classes, annotations, category_order)
        dataset = build_dataset(cfg, spec, train=False, category_order=order, annotations=annotations)
        check_class_count(cfg, dataset, name)
        comm.on_main(partial(check_test_set, cfg, dataset))
        evaluator = build_evaluator(
            cfg,
            dataset.annotations.raw,
            dataset.label_to_category,
            kind=dataset.annotations.kind,
            shard_folder=folder / spec.name,
        )
        loader = build_test_loader(cfg, dataset)
        precision = Precision.from_cfg(cfg, device)
        report = inference(tested, loader, evaluator, device, f"testing {spec.name}", precision=precision)
        reports[spec.name] = report
        comm.on_main(partial(evaluator.write, report, folder / spec.name))
        if comm.is_main_process():
            _LOG.info("%s\n%s", spec.name, format_evaluation(report))
    check_expected(cfg, reports[spec.name].metrics)
    return reports


def check_expected(cfg: CfgNode, metrics: dict[str, float]) -> bool:
    """Compare TEST.EXPECTED_RESULTS ([task, metric, [mean, std]]) with `metrics` and log the outcome.

    Passes if |value - mean| < TEST.EXPECTED_RESULTS_SIGMA_TOL * std for every entry; a metric that was not
    computed fails.
    """
    tolerance = cfg.TEST.EXPECTED_RESULTS_SIGMA_TOL
    passed = True
    for task, metric, (mean, std) in cfg.TEST.EXPECTED_RESULTS:
        value = metrics.get(f"{task}/{metric}", math.nan)
        fits = abs(value - mean) < tolerance * std
        passed = passed and fits
        log = _LOG.info if fits else _LOG.error
        verdict = "as expected" if fits else "NOT as expected"
        log("%s %s: %.4f, %s (%.4f +- %.4f)", task, metric, value, verdict, mean, tolerance * std)
    return passed


test_plain.__test__ = False  # type: ignore[attr-defined]  # the name is a command, not a test case
