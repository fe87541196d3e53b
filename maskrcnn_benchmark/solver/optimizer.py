"""Optimizers with one parameter group per trainable parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.utils.errors import ConfigError

OPTIMIZERS = ("SGD", "ADAMW")
OFFSETS = (".offset.weight", ".offset.bias")
"""Name endings of parameters that predict deformable offsets."""


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float,
    weight_decay_bias: float,
    offset_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """One optimizer group per trainable parameter, in `named_parameters` order.

    parity: "bias" anywhere in the name gives `lr * bias_lr_factor` and `weight_decay_bias`, so group-norm
    biases are not decayed while group-norm weights are (solver/build.py of maskrcnn-benchmark). The rate of
    parameters that predict deformable offsets is multiplied by `offset_lr_factor` as well.

    Returns dicts with `params`, `lr`, `weight_decay` and `name`.
    """
    groups: list[dict[str, Any]] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = "bias" in name
        rate = lr * bias_lr_factor if is_bias else lr
        groups.append(
            {
                "name": name,
                "params": [parameter],
                "lr": rate * offset_lr_factor if name.endswith(OFFSETS) else rate,
                "weight_decay": weight_decay_bias if is_bias else weight_decay,
            }
        )
    return groups


def _fused_sgd(groups: list[dict[str, Any]], *, lr: float, momentum: float) -> torch.optim.SGD:
    """Fused SGD: reads and writes every parameter once, with the bits of the plain one in less CPU time."""
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    optimizer.register_step_pre_hook(align_layouts)
    return optimizer


def align_layouts(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    """Give gradients and momentum the memory layout of their parameter, for the fused step.

    The fused step walks through memory without regard to strides. Autograd gives the right ones, but a loaded
    state or a gradient from elsewhere may be laid out in another way. Missing momentum starts as zeros here,
    which makes the same first step: the fused one leaves it uninitialised when the scaler skips that step.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            parameter.grad = _laid_out_as(parameter.grad, parameter)
            if group["momentum"]:
                state = optimizer.state[parameter]
                buffer = state.get("momentum_buffer")
                state["momentum_buffer"] = (
                    torch.zeros_like(parameter, requires_grad=False)
                    if buffer is None
                    else _laid_out_as(buffer, parameter)
                )


def _laid_out_as(value: Tensor, like: Tensor) -> Tensor:
    """Return `value` (...,), or a copy with the strides of `like`; sides of length 1 do not count."""
    sides = zip(value.shape, value.stride(), like.stride(), strict=True)
    if all(size == 1 or stride == target for size, stride, target in sides):
        return value
    return torch.empty_like(like, requires_grad=False).copy_(value)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build SGD with momentum or AdamW over the trainable parameters of `model`, from `cfg.SOLVER`.

    Raises:
        ConfigError: an unknown `SOLVER.OPTIMIZER`, or a model in which everything is frozen.
    """
    solver = cfg.SOLVER
    groups = parameter_groups(
        model,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        offset_lr_factor=solver.DCONV_OFFSETS_LR_FACTOR,
    )
    if not groups:
        raise ConfigError(
            "the model has no trainable parameter: lower MODEL.BACKBONE.FREEZE_CONV_BODY_AT "
            f"(now {cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT})"
        )
    if solver.OPTIMIZER == "SGD":
        return _fused_sgd(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM)
    if solver.OPTIMIZER == "ADAMW":
        return torch.optim.AdamW(groups, lr=solver.BASE_LR)
    raise ConfigError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}, expected one of {', '.join(OPTIMIZERS)}")
