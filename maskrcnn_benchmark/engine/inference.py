"""Inference over a data set: predictions go to an evaluator batch by batch, with progress lines."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sized

import torch
from torch import nn

from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.evaluation.base import Evaluator
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.utils.progress import Progress

_LOG = logging.getLogger(__name__)


@torch.no_grad()
def inference(
    model: nn.Module,
    loader: Iterable[Batch],
    evaluator: Evaluator,
    device: torch.device,
    what: str,
    *,
    precision: Precision | None = None,
) -> EvaluationReport:
    """Predict every image of this rank's `loader` and evaluate over all ranks.

    Collective over ranks. The model is put into eval mode, and back into its mode at the end. Predictions
    leave the device one batch at a time. `what` names the work in the progress lines.
    """
    precision = precision or Precision(torch.float32, device)
    was_training = model.training
    model.eval()
    evaluator.reset()
    progress = Progress(len(loader) if isinstance(loader, Sized) else 0, what, _LOG)
    try:
        for batch in loader:
            with precision.autocast():
                predictions = model(batch.images.to(device))
            evaluator.process(batch.image_ids, [p.to(torch.device("cpu")) for p in predictions])
            progress.update()
    finally:
        model.train(was_training)
    return evaluator.evaluate()
