"""Learning-rate schedules: linear or constant warm-up, then steps (MultiStepLR) or cosine annealing."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.utils.errors import ConfigError

SCHEDULES = ("step", "cosine")
WARMUPS = ("linear", "constant")


def warmup_factor(iteration: int, *, iters: int, factor: float, method: str) -> float:
    """Warm-up multiplier of the first `iters` iterations (counted from 0); 1 afterwards.

    linear: from `factor` at 0 towards 1; constant: `factor` (WarmupMultiStepLR of maskrcnn-benchmark).
    """
    if iteration >= iters:
        return 1.0
    if method == "constant":
        return factor
    alpha = iteration / iters
    return factor * (1.0 - alpha) + alpha


def step_factor(iteration: int, *, steps: Sequence[int], gamma: float) -> float:
    """Step decay: `gamma` to the power of how many `steps` are <= `iteration`."""
    return gamma ** bisect_right(list(steps), iteration)


def cosine_factor(iteration: int, *, max_iter: int) -> float:
    """Cosine annealing from 1 at iteration 0 to 0 at `max_iter` (Loshchilov and Hutter 2017, equation 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(iteration / max(max_iter, 1), 1.0)))


class LRSchedule:
    """Sets the learning rate of every optimizer group as a pure function of the iteration.

    The base rate of a group is its `lr` at construction. The only state is the iteration, so a run can be
    resumed with a changed schedule: the rates of a loaded optimizer state are overwritten by the config's.

    Args:
        method: "step" or "cosine".
        steps: ascending iterations at which the rate is multiplied by `gamma`.
        max_iter: end of the cosine.
        warmup_iters, warmup_ratio: length of the warm-up and the factor at its start.
        warmup_method: "linear" or "constant".

    Raises:
        ConfigError: an unknown method, or `steps` out of order.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        method: str = "step",
        steps: Sequence[int] = (),
        gamma: float = 0.1,
        max_iter: int = 0,
        warmup_iters: int = 0,
        warmup_ratio: float = 1.0 / 3,
        warmup_method: str = "linear",
    ) -> None:
        if method not in SCHEDULES:
            raise ConfigError(f"SOLVER.LR_SCHEDULER is {method!r}, expected one of {', '.join(SCHEDULES)}")
        if warmup_method not in WARMUPS:
            raise ConfigError(
                f"SOLVER.WARMUP_METHOD is {warmup_method!r}, expected one of {', '.join(WARMUPS)}"
            )
        if list(steps) != sorted(steps):
            raise ConfigError(f"SOLVER.STEPS must be ascending iterations, found {tuple(steps)}")
        self.optimizer = optimizer
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self.method = method
        self.steps = tuple(steps)
        self.gamma = gamma
        self.max_iter = max_iter
        self.warmup_iters = warmup_iters
        self.warmup_ratio = warmup_ratio
        self.warmup_method = warmup_method
        self.iteration = 0
        self.apply()

    def factor(self, iteration: int) -> float:
        """Multiplier of the base rates at `iteration` (from 0)."""
        warm = warmup_factor(
            iteration, iters=self.warmup_iters, factor=self.warmup_ratio, method=self.warmup_method
        )
        if self.method == "cosine":
            return warm * cosine_factor(iteration, max_iter=self.max_iter)
        return warm * step_factor(iteration, steps=self.steps, gamma=self.gamma)

    def apply(self) -> None:
        """Write the rates of the current iteration into the optimizer."""
        factor = self.factor(self.iteration)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor

    def step(self) -> None:
        """Advance by one update; call after `optimizer.step()`."""
        self.iteration += 1
        self.apply()

    def state_dict(self) -> dict[str, Any]:
        """The iteration; everything else comes from the config."""
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the stored iteration and set the rates that this schedule has there."""
        self.iteration = int(state["iteration"])
        self.apply()


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer, max_iter: int | None = None
) -> LRSchedule:
    """Build the schedule of `cfg.SOLVER`; `max_iter` (end of the cosine) defaults to `SOLVER.MAX_ITER`."""
    solver = cfg.SOLVER
    return LRSchedule(
        optimizer,
        method=solver.LR_SCHEDULER,
        steps=solver.STEPS,
        gamma=solver.GAMMA,
        max_iter=solver.MAX_ITER if max_iter is None else max_iter,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_ratio=solver.WARMUP_FACTOR,
        warmup_method=solver.WARMUP_METHOD,
    )
