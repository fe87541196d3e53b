"""What happens around the updates of a run: log lines, checkpoints, evaluations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer
from maskrcnn_benchmark.engine.step import StepResult
from maskrcnn_benchmark.engine.writers import MetricsWriter
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.meters import MetricLogger
from maskrcnn_benchmark.utils.progress import format_eta

_LOG = logging.getLogger(__name__)
# Figures that depend on the machine and not on the run's content; left out of checkpoints.
TIMES = ("time", "data")


@dataclass
class Run:
    """State that the loop and its hooks share.

    `iteration` counts finished updates; `writer` exists on the main process only; `evaluations` holds
    the metrics of the periodic evaluations by iteration; `saved_at` is the iteration of the newest
    checkpoint.
    """

    model: nn.Module
    checkpointer: Checkpointer
    max_iter: int
    iteration: int
    device: torch.device
    writer: MetricsWriter | None
    meters: MetricLogger = field(default_factory=MetricLogger)
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    saved_at: int = -1

    def save(self, name: str | None = None) -> None:
        """Write a checkpoint (`model_<iteration, 7 digits>` by default) from which the run can go on.

        Every rank must call this; a WriteError of the main process stops all of them.
        """
        meters = {n: s for n, s in self.meters.state_dict().items() if n not in TIMES}
        file = name or f"model_{self.iteration:07d}"
        comm.on_main(lambda: self.checkpointer.save(file, self.iteration, {"meters": meters}))
        self.saved_at = self.iteration

    def record(self, kind: str, numbers: dict[str, float]) -> None:
        """Write numbers of this iteration into the metrics files; every rank must call this."""

        def write() -> None:
            if self.writer is not None:
                self.writer.write(kind, self.iteration, numbers)

        comm.on_main(write)


class Hook:
    """Called by the loop on every rank; each method may do nothing."""

    def on_start(self, run: Run) -> None:
        """Before the first update of this process."""

    def after_step(self, run: Run, result: StepResult) -> None:
        """After an update; `run.iteration` already counts it."""


class LogHook(Hook):
    """Meters; every `period` iterations and at the end a log line and a record in the metrics files."""

    def __init__(self, period: int) -> None:
        self.period = max(1, period)
        self._began = time.perf_counter()
        self._steps = 0

    def on_start(self, run: Run) -> None:
        """Start the clock of the ETA, which counts evaluations and checkpoints in."""
        self._began = time.perf_counter()

    def after_step(self, run: Run, result: StepResult) -> None:
        """Update the meters; log when due."""
        run.meters.update(loss=result.loss, **result.losses)
        if result.updated:
            run.meters.update(grad_norm=result.grad_norm)
        else:
            _LOG.warning("iteration %d: float16 overflow, update skipped, loss scale lowered", run.iteration)
        run.meters.update(time=result.seconds, data=result.data_seconds)
        self._steps += 1
        if run.iteration % self.period and run.iteration != run.max_iter:
            return
        eta = (time.perf_counter() - self._began) / self._steps * (run.max_iter - run.iteration)
        memory = _peak_memory_mb(run.device)
        memory_text = "" if memory is None else f"  max mem: {memory:.0f} MB"
        _LOG.info(
            "iteration: %d/%d  eta: %s  %s  lr: %.6g%s",
            run.iteration,
            run.max_iter,
            format_eta(eta),
            run.meters,
            result.lr,
            memory_text,
        )
        numbers = {**run.meters.medians(), "lr": result.lr, "eta_seconds": eta}
        if memory is not None:
            numbers["max_memory_mb"] = memory
        run.record("train", numbers)


def _peak_memory_mb(device: torch.device) -> float | None:
    """Peak GPU memory of this process in MiB; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


class CheckpointHook(Hook):
    """A checkpoint every `period` iterations; 0 only saves at the end of the run."""

    def __init__(self, period: int) -> None:
        self.period = period

    def after_step(self, run: Run, result: StepResult) -> None:
        """Save when due; the end of the run saves by itself."""
        if self.period > 0 and run.iteration % self.period == 0 and run.iteration < run.max_iter:
            run.save()


class EvaluationHook(Hook):
    """Calls `evaluate(model in eval mode, iteration)` every `period` iterations, not after the last one.

    A checkpoint is written before, so that the evaluation can be interrupted at any moment; a run that
    resumes from that checkpoint makes up for the evaluation it lost. Evaluation does not disturb training:
    random numbers are seeded anew for every update.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[nn.Module, int], dict],
        interruptible: Callable[[], AbstractContextManager],
    ) -> None:
        self.period = period
        self.evaluate = evaluate
        self.interruptible = interruptible

    def _due(self, run: Run) -> bool:
        return 0 < run.iteration < run.max_iter and self.period > 0 and run.iteration % self.period == 0

    def on_start(self, run: Run) -> None:
        """Evaluate where the stopped run should have."""
        if self._due(run) and run.iteration not in run.evaluations:
            self._run(run)

    def after_step(self, run: Run, result: StepResult) -> None:
        """Evaluate when due."""
        if self._due(run):
            self._run(run)

    def _run(self, run: Run) -> None:
        if run.saved_at != run.iteration:
            run.save()
        run.model.eval()
        try:
            with self.interruptible(), torch.no_grad():
                metrics = self.evaluate(run.model, run.iteration)
        finally:
            run.model.train()
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
        run.evaluations[run.iteration] = numbers
        run.record("evaluation", numbers)
