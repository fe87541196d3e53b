"""The training loop of ordinary training and of every phase of incremental training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.config.catalog import resolve_weight
from maskrcnn_benchmark.config.load import changed_keys, dump_config, save_config
from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.engine.finite_check import NONFINITE_FILE, NonFiniteError, report_non_finite
from maskrcnn_benchmark.engine.hooks import CheckpointHook, EvaluationHook, Hook, LogHook, TrainState
from maskrcnn_benchmark.engine.interrupt import InterruptGuard
from maskrcnn_benchmark.engine.launch import rank_device
from maskrcnn_benchmark.engine.model_classes import set_trained_classes
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.engine.writers import MetricsWriter
from maskrcnn_benchmark.solver.lr import build_lr_scheduler
from maskrcnn_benchmark.solver.optimizer import build_optimizer
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import UsageError

_LOG = logging.getLogger(__name__)
FINAL = "model_final"


@dataclass
class TrainSummary:
    """Result of `train`.

    `start_iteration` is 0 for a new run, `iterations` the last iteration; `losses` are averages over
    the whole run (empty when nothing was left to do); `weights` is the path of the final checkpoint.
    """

    start_iteration: int
    iterations: int
    seconds: float
    weights: str
    losses: dict[str, float] = field(default_factory=dict)
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)


def load_initial_weights(cfg: CfgNode, model: nn.Module) -> None:
    """Load `MODEL.WEIGHT` (path, URL or catalog name) into `model`, or log that they are random."""
    if not cfg.MODEL.WEIGHT:
        _LOG.info("nothing to resume and MODEL.WEIGHT is empty: training starts from random weights")
        return
    _LOG.info("nothing to resume: training starts from MODEL.WEIGHT %s", cfg.MODEL.WEIGHT)
    load_weights(
        model,
        resolve_weight(cfg, cfg.MODEL.WEIGHT),
        conv_body=cfg.MODEL.BACKBONE.CONV_BODY,
        allow_mismatch=cfg.MODEL.WEIGHT_ALLOW_MISMATCH,
    )


def _open_run(
    cfg: CfgNode,
    model: nn.Module,
    checkpointer: Checkpointer,
    *,
    output_dir: str,
    max_iter: int,
    device: torch.device,
) -> TrainState:
    """Resume from the folder's last checkpoint or start anew; the folder gets `config.yml`."""
    resumed = checkpointer.resume()
    start = 0 if resumed is None else int(resumed["iteration"])
    starts = comm.all_gather_objects(start)
    if len(set(starts)) > 1:
        raise UsageError(
            f"the ranks found checkpoints of different iterations in {output_dir} ({starts}); OUTPUT_DIR "
            "must be one folder that every host of the run sees"
        )
    if resumed is None:
        load_initial_weights(cfg, model)
    else:
        _LOG.info("resuming %s at iteration %d; MODEL.WEIGHT is not read", output_dir, start)
        _check_resumed(cfg, resumed, output_dir, max_iter)
    state = TrainState(model, checkpointer, max_iter, start, device, None, saved_at=start if resumed else -1)
    folder = Path(output_dir)

    def begin() -> dict[int, dict[str, float]]:
        save_config(cfg, folder / "config.yml")
        (folder / NONFINITE_FILE).unlink(missing_ok=True)
        state.writer = MetricsWriter(folder, start)
        return state.writer.evaluations

    state.evaluations = comm.on_main(begin)
    if resumed is not None:
        state.meters.load_state_dict(resumed.get("meters", {}))
    return state


def _check_resumed(cfg: CfgNode, resumed: dict[str, Any], output_dir: str, max_iter: int) -> None:
    """Warn about changed config keys; raise UsageError when the checkpoint is past the end of the run."""
    if resumed["iteration"] > max_iter:
        raise UsageError(
            f"{output_dir} is at iteration {resumed['iteration']}, past SOLVER.MAX_ITER {max_iter}: set "
            f"SOLVER.MAX_ITER {resumed['iteration']} or more, or choose another OUTPUT_DIR"
        )
    changes = changed_keys(resumed["config"], dump_config(cfg)) if "config" in resumed else []
    if changes:
        _LOG.warning("settings changed since iteration %d: %s", resumed["iteration"], "; ".join(changes))


def _loop(
    cfg: CfgNode,
    state: TrainState,
    step: TrainStep,
    make_batches: Callable[[int], Iterable[Batch]],
    evaluate: Callable[[nn.Module, int], dict] | None,
) -> None:
    """Iterate until `state.max_iter`; a stop request saves a checkpoint and raises KeyboardInterrupt."""
    with InterruptGuard() as guard:
        hooks: list[Hook] = [LogHook(cfg.SOLVER.LOG_PERIOD), CheckpointHook(cfg.SOLVER.CHECKPOINT_PERIOD)]
        if evaluate is not None:
            hooks.append(EvaluationHook(cfg.SOLVER.TEST_PERIOD, evaluate, guard.at_once))
        for hook in hooks:
            hook.on_start(state)
        if state.iteration >= state.max_iter:
            return
        batches = iter(make_batches(state.iteration * step.accumulation))
        while state.iteration < state.max_iter:
            result = step(state.iteration, batches, lambda: guard.requested)
            state.iteration += 1
            for hook in hooks:
                hook.after_iteration(state, result)
            if result.stop and state.iteration < state.max_iter:
                if state.saved_at != state.iteration:
                    state.save()
                _LOG.warning("stopped after iteration %d; its checkpoint is saved", state.iteration)
                raise KeyboardInterrupt


def train(
    cfg: CfgNode,
    model: nn.Module,
    make_batches: Callable[[int], Iterable[Batch]],
    *,
    output_dir: str,
    max_iter: int,
    evaluate: Callable[[nn.Module, int], dict] | None = None,
    distill: Callable[[Batch], StoredLogits] | None = None,
    classes: list[str],
    extra_meta: dict[str, Any] | None = None,
    image_name: Callable[[int], str] | None = None,
) -> TrainSummary:
    """Train `model` up to `max_iter` iterations and write `model_final.pth`.

    Arguments:
        cfg: SOLVER, SEED, DTYPE, MODEL.DEVICE and MODEL.WEIGHT are read; the whole tree goes into the
            checkpoints.
        make_batches: maps the number of batches consumed so far (iterations x SOLVER.ACCUMULATION_STEPS)
            to this rank's batches from there on; the stream must depend on nothing but the config.
        output_dir: receives log, `metrics.jsonl`, `tensorboard/`, `config.yml` and checkpoints. A run that
            is there already is resumed; exactly to the bit with one rank on the CPU, because data and random
            numbers depend on the seed and the iteration alone.
        evaluate: called on all ranks every SOLVER.TEST_PERIOD iterations with the model in eval mode.
        distill: stored teacher outputs for a batch (on the model's device).
        classes: names by label, background first; stored in and checked against checkpoints.
        extra_meta: further entries of the checkpoints' description.
        image_name: file name for a position in the data set, for messages.

    Raises NonFiniteError (after a checkpoint of the last good iteration), KeyboardInterrupt after a stop
    request, WriteError when the disk is full (the last checkpoint stays), and UsageError when
    `make_batches` ends too early or the folder's run is past `max_iter`.
    """
    began = time.perf_counter()
    device = rank_device(cfg.MODEL.DEVICE)
    model.to(device).train()
    optimizer = build_optimizer(cfg, model)
    schedule = build_lr_scheduler(cfg, optimizer, max_iter)
    precision = Precision.from_cfg(cfg, device)
    meta = {"config": dump_config(cfg), "classes": list(classes), **(extra_meta or {})}
    keep = cfg.SOLVER.KEEP_CHECKPOINTS
    checkpointer = Checkpointer(output_dir, model, optimizer, schedule, precision.scaler, meta, keep=keep)
    state = _open_run(cfg, model, checkpointer, output_dir=output_dir, max_iter=max_iter, device=device)
    set_trained_classes(model, meta)
    start, weights = state.iteration, Path(output_dir) / f"{FINAL}.pth"
    try:
        if start >= max_iter and weights.exists():
            _LOG.info(
                "%s is trained already (%d of %d iterations): nothing to do", output_dir, start, max_iter
            )
        else:
            step = TrainStep.from_cfg(
                cfg,
                model,
                optimizer=optimizer,
                schedule=schedule,
                precision=precision,
                device=device,
                distill=distill,
            )
            try:
                _loop(cfg, state, step, make_batches, evaluate)
            except NonFiniteError as error:
                if state.iteration > 0 and state.saved_at != state.iteration:
                    state.save()
                last = f"model_{state.iteration:07d}.pth" if state.iteration > 0 else None
                raise report_non_finite(cfg, error, Path(output_dir), last, image_name) from None
            state.save(FINAL)
            comm.barrier()  # the file is there when any rank returns
    finally:
        if state.writer is not None:
            state.writer.close()
    seconds = time.perf_counter() - began
    return TrainSummary(
        start, state.iteration, seconds, str(weights), state.meters.averages(), state.evaluations
    )
