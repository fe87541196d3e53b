"""What a checkpoint says about its run, checked before anything of it is restored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.content import walk
from maskrcnn_benchmark.checkpoint.pickle_machine import short
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

_PARTS = ("optimizer", "scheduler", "scaler")
_MAX_ITERATION = 1 << 53


def check_run_state(path: StrPath, data: Mapping[str, Any]) -> None:
    """Require an iteration, and numbers that an optimizer can continue with.

    Args:
        path: names the file in messages. data: its content.

    Raises:
        CheckpointError: names the entry.
    """
    if "iteration" not in data:
        raise CheckpointError(f"{path} holds weights only, no run; give it as MODEL.WEIGHT")
    iteration = data["iteration"]
    if type(iteration) is not int or not 0 <= iteration < _MAX_ITERATION:
        _refuse(path, "iteration", f"is {short(iteration)}, not a number of iterations")
    for part in _PARTS:
        if part in data and not isinstance(data[part], Mapping):
            _refuse(path, part, f"is {short(data[part])}, not the state of the {part}")
        walk(data.get(part), partial(_check_number, path, part))


def _check_number(path: StrPath, part: str, leaf: Any, name: Callable[[], str]) -> None:
    """Refuse a number that is not finite; the buffers of the state may hold any real values."""
    if isinstance(leaf, complex) or (isinstance(leaf, Tensor) and leaf.dtype.is_complex):
        _refuse(path, f"{part}.{name()}", "is not real")
    single = isinstance(leaf, float) or (isinstance(leaf, Tensor) and leaf.dim() == 0)
    if single and not math.isfinite(float(leaf)):
        _refuse(path, f"{part}.{name()}", f"is {float(leaf)}, not a finite number")


def check_buffers(path: StrPath, stored: Any, optimizer: torch.optim.Optimizer) -> None:
    """Refuse tensors of another shape than the parameter that they belong to, which no optimizer notices.

    Args:
        path: names the file in messages. stored: state of an optimizer, of any form.

    Raises:
        CheckpointError: names the tensor.
    """
    shapes = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
    groups = stored.get("param_groups") if isinstance(stored, Mapping) else None
    lists = [g.get("params") if isinstance(g, Mapping) else None for g in _list(groups)]
    indices = [index for indices in lists for index in _list(indices)]
    state = stored.get("state") if isinstance(stored, Mapping) else None
    for index, shape in zip(indices, shapes, strict=False):
        known = isinstance(state, Mapping) and isinstance(index, int | str)
        buffers = state.get(index) if known else None  # type: ignore[union-attr]
        for name, value in buffers.items() if isinstance(buffers, Mapping) else ():
            if isinstance(value, Tensor) and value.dim() and tuple(value.shape) != shape:
                where = f"optimizer.state.{index}.{name if isinstance(name, str) else short(name)}"
                _refuse(path, where, f"has shape {tuple(value.shape)}, its parameter has {shape}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _refuse(path: StrPath, name: str, problem: str) -> None:
    raise CheckpointError(
        f"{path}: {name} {problem}; the file is damaged or of another program: use another OUTPUT_DIR with "
        f"MODEL.WEIGHT {path}"
    )
