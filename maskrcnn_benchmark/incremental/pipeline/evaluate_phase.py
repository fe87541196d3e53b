"""Evaluate the model of a phase on its validation data, and write the report of its final weights."""

from __future__ import annotations

import logging

from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.data.build import build_test_loader
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.engine.inference import inference
from maskrcnn_benchmark.engine.launch import rank_device
from maskrcnn_benchmark.evaluation.build import build_evaluator
from maskrcnn_benchmark.evaluation.confusion import format_confusion
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import FINAL_WEIGHTS, report_folder
from maskrcnn_benchmark.incremental.reporting.class_history import format_losses, read_class_history
from maskrcnn_benchmark.incremental.reporting.phase_report import (
    format_phase_report,
    phase_confusion,
    report_groups,
    write_phase_report,
)
from maskrcnn_benchmark.modeling.detectors.augmented import model_for_testing
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.utils.comm import on_main

logger = logging.getLogger(__name__)


def evaluate_phase(
    run: RunContext,
    cfg: CfgNode,
    plan: PhasePlan,
    model: nn.Module,
    what: str,
    dataset: DetectionDataset | None = None,
) -> EvaluationReport:
    """Evaluate a phase's model on its validation data (or `dataset`); collective over ranks.

    Args:
        cfg: derived configuration of the phase. what: name of the weights, for the log.
    """
    dataset = dataset or run.data.val_dataset(cfg, plan)
    device = rank_device(cfg.MODEL.DEVICE)
    evaluator = build_evaluator(
        cfg,
        dataset.annotations.raw,
        dataset.label_to_category,
        kind=run.data.val.kind,
        groups=report_groups(plan, cfg.LST.PHASE),
        shard_folder=run.folder(cfg.LST.PHASE),
    )
    return inference(
        model_for_testing(cfg, model.to(device)),
        build_test_loader(cfg, dataset),
        evaluator,
        device,
        f"phase {cfg.LST.PHASE}: testing {what}",
        precision=Precision.from_cfg(cfg, device),
    )


def report_phase(run: RunContext, plan: PhasePlan, phase: int) -> EvaluationReport:
    """Test the final model of a phase, write its report folder and log the tables; collective over ranks."""
    cfg, weights = run.phase_cfg(plan, phase), run.final_weights(phase)
    dataset = run.data.val_dataset(cfg, plan)
    report = evaluate_phase(run, cfg, plan, run.load_final_model(plan, phase), FINAL_WEIGHTS, dataset)

    def write() -> None:
        details = {"checkpoint": run.file_hash(weights), "val_images": cfg.LST.VAL_IMAGES}
        confusion = phase_confusion(dataset.annotations.raw, report, plan, phase)
        folder = report_folder(run.run_dir, phase)
        write_phase_report(report, plan, phase, folder, confusion=confusion, details=details)
        logger.info("\n%s\n%s", format_phase_report(report, plan, phase), format_confusion(confusion))
        for task in report.tasks if phase else ():
            history = read_class_history(run.run_dir, plan, task, until=phase)
            logger.info("\nclasses that lost most %s AP:\n%s", task, format_losses(history))

    on_main(write)
    return report
