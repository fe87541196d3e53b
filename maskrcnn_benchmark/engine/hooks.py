"""Hooks of the training loop: logging, checkpoints, periodic evaluation."""

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
# Meters that depend on the host and not on the content of the run; left out of checkpoints.
TIME_METERS = ("time", "data")


@dataclass
class TrainState:
    """State that the loop and its hooks share.

    `iteration` counts finished iterations; `writer` exists on rank 0 only; `evaluations` holds
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
        """Write a checkpoint (`model_<iteration, 7 digits>` by default) to resume from.

        Every rank must call this; a WriteError of rank 0 stops all of them.
        """
        meters = {n: s for n, s in self.meters.state_dict().items() if n not in TIME_METERS}
        file = name or f"model_{self.iteration:07d}"
        comm.on_main(lambda: self.checkpointer.save(file, self.iteration, {"meters": meters}))
        self.saved_at = self.iteration

    def record(self, kind: str, values: dict[str, float]) -> None:
        """Write values of this iteration into the metrics files; every rank must call this."""

        def write() -> None:
            if self.writer is not None:
                self.writer.write(kind, self.iteration, values)

        comm.on_main(write)


class Hook:
    """Base class of hooks, which the loop calls on every rank."""

    def on_start(self, state: TrainState) -> None:
        """Run before the first iteration after a start or resume."""

    def after_iteration(self, state: TrainState, result: StepResult) -> None:
        """Run after an iteration, which `state.iteration` already counts."""


class LogHook(Hook):
    """Update meters; every `period` iterations and at the end log and record them."""

    def __init__(self, period: int) -> None:
        self.period = max(1, period)
        self._began = time.perf_counter()
        self._iterations = 0

    def on_start(self, state: TrainState) -> None:
        """Start the timer of the ETA, which includes evaluations and checkpoints."""
        self._began = time.perf_counter()

    def after_iteration(self, state: TrainState, result: StepResult) -> None:
        """Update the meters; log when due."""
        state.meters.update(loss=result.loss, **result.losses)
        if result.updated:
            state.meters.update(grad_norm=result.grad_norm)
        else:
            _LOG.warning(
                "iteration %d: float16 overflow, update skipped, loss scale lowered", state.iteration
            )
        state.meters.update(time=result.seconds, data=result.data_seconds)
        self._iterations += 1
        if state.iteration % self.period and state.iteration != state.max_iter:
            return
        eta = (time.perf_counter() - self._began) / self._iterations * (state.max_iter - state.iteration)
        memory = _peak_memory_mb(state.device)
        memory_text = "" if memory is None else f"  max mem: {memory:.0f} MB"
        _LOG.info(
            "iteration: %d/%d  eta: %s  %s  lr: %.6g%s",
            state.iteration,
            state.max_iter,
            format_eta(eta),
            state.meters,
            result.lr,
            memory_text,
        )
        values = {**state.meters.medians(), "lr": result.lr, "eta_seconds": eta}
        if memory is not None:
            values["max_memory_mb"] = memory
        state.record("train", values)


def _peak_memory_mb(device: torch.device) -> float | None:
    """Peak GPU memory of this rank in MiB; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


class CheckpointHook(Hook):
    """Save a checkpoint every `period` iterations; 0 only saves at the end of the run."""

    def __init__(self, period: int) -> None:
        self.period = period

    def after_iteration(self, state: TrainState, result: StepResult) -> None:
        """Save when due; the end of the run saves by itself."""
        if self.period > 0 and state.iteration % self.period == 0 and state.iteration < state.max_iter:
            state.save()


class EvaluationHook(Hook):
    """Call `evaluate(model in eval mode, iteration)` every `period` iterations, not after the last one.

    A checkpoint is written before, so that the evaluation can be interrupted at any time; a run that resumes
    from that checkpoint repeats the evaluation. Evaluation does not change training: random numbers are
    seeded for every iteration.
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

    def _due(self, state: TrainState) -> bool:
        return 0 < state.iteration < state.max_iter and self.period > 0 and state.iteration % self.period == 0

    def on_start(self, state: TrainState) -> None:
        """Evaluate when the stopped run did not get to it."""
        if self._due(state) and state.iteration not in state.evaluations:
            self._evaluate(state)

    def after_iteration(self, state: TrainState, result: StepResult) -> None:
        """Evaluate when due."""
        if self._due(state):
            self._evaluate(state)

    def _evaluate(self, state: TrainState) -> None:
        if state.saved_at != state.iteration:
            state.save()
        state.model.eval()
        try:
            with self.interruptible(), torch.no_grad():
                metrics = self.evaluate(state.model, state.iteration)
        finally:
            state.model.train()
        values = {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
        state.evaluations[state.iteration] = values
        state.record("evaluation", values)
