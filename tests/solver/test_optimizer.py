"""Parameter groups, optimizers, clipping and precision."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.solver.clipping import GradientClipper
from maskrcnn_benchmark.solver.optimizer import build_optimizer, parameter_groups
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.utils.errors import ConfigError


def _cfg(**solver: object) -> CfgNode:
    values = {
        "OPTIMIZER": "SGD",
        "BASE_LR": 0.02,
        "BIAS_LR_FACTOR": 2,
        "MOMENTUM": 0.9,
        "WEIGHT_DECAY": 1e-4,
        "WEIGHT_DECAY_BIAS": 0,
        "DCONV_OFFSETS_LR_FACTOR": 1.0,
    }
    values.update(solver)
    return CfgNode({"SOLVER": values, "MODEL": {"BACKBONE": {"FREEZE_CONV_BODY_AT": 5}}})


def _model() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), nn.GroupNorm(1, 3), nn.Linear(3, 1))
    model[0].weight.requires_grad_(False)
    return model


def test_one_group_per_trainable_parameter_with_bias_rule() -> None:
    optimizer = build_optimizer(_cfg(), _model())
    groups = [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
    assert groups == [
        ("0.bias", 0.04, 0, 1),
        ("1.weight", 0.02, 1e-4, 1),
        ("1.bias", 0.04, 0, 1),
        ("2.weight", 0.02, 1e-4, 1),
        ("2.bias", 0.04, 0, 1),
    ]
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_offsets_of_deformable_convolutions_have_their_own_rate() -> None:
    model = nn.Sequential(OrderedDict(conv2=DFConv2d(4, 4), conv_offset=nn.Conv2d(4, 2, 1, bias=False)))
    optimizer = build_optimizer(_cfg(DCONV_OFFSETS_LR_FACTOR=0.1), model)
    groups = {g["name"]: (pytest.approx(g["lr"]), g["weight_decay"]) for g in optimizer.param_groups}
    assert groups == {
        "conv2.offset.weight": (0.002, 1e-4),
        "conv2.offset.bias": (0.004, 0),
        "conv2.conv.weight": (0.02, 1e-4),
        "conv_offset.weight": (0.02, 1e-4),
    }


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_equal_plain_sgd(momentum: float) -> None:
    """Also when the gradients and the loaded state are laid out in memory in another way than the weights."""
    weights, states = [], []
    for fused in (True, False):
        source = torch.Generator().manual_seed(0)
        model = nn.Conv2d(5, 3, 3)
        model.weight.data = torch.randn(3, 5, 3, 3, generator=source).to(memory_format=torch.channels_last)
        model.bias.data = torch.randn(3, generator=source)
        cfg = _cfg(MOMENTUM=momentum)
        groups = build_optimizer(cfg, model).param_groups
        plain = torch.optim.SGD([{**group, "fused": False} for group in groups], lr=0.02)
        optimizer = build_optimizer(cfg, model) if fused else plain
        for step in range(4):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=source)
            optimizer.step()
            if step == 1:
                state = optimizer.state_dict()
                for entry in state["state"].values():
                    if entry.get("momentum_buffer") is not None:
                        entry["momentum_buffer"] = entry["momentum_buffer"].contiguous()
                state["param_groups"] = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict(state)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        states.append(optimizer.state_dict()["state"])
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)
    if momentum:
        for index in (0, 1):
            buffers = [state[index]["momentum_buffer"] for state in states]
            torch.testing.assert_close(*buffers, rtol=1e-6, atol=1e-7)


def test_a_skipped_first_step_leaves_no_trace() -> None:
    """With a scaler: an overflow in the first step, then a good one."""
    model = nn.Linear(4, 1)
    optimizer = build_optimizer(_cfg(WEIGHT_DECAY=0.0), model)
    before = model.weight.detach().clone()
    scaler = torch.amp.GradScaler("cpu")
    for value in (math.inf, 1.0):
        scaler.scale(torch.zeros(1))
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value) * scaler.get_scale()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert torch.allclose(model.weight, before - 0.02)


def test_shared_parameter_has_one_group() -> None:
    shared = nn.Linear(2, 2, bias=False)
    groups = parameter_groups(
        nn.ModuleList([shared, shared]), lr=1.0, weight_decay=0.0, bias_lr_factor=1.0, weight_decay_bias=0.0
    )
    assert len(groups) == 1


def test_adamw_and_unknown_optimizer() -> None:
    assert isinstance(build_optimizer(_cfg(OPTIMIZER="ADAMW"), _model()), torch.optim.AdamW)
    with pytest.raises(ConfigError, match=r"SOLVER\.OPTIMIZER.*LION"):
        build_optimizer(_cfg(OPTIMIZER="LION"), _model())


def test_all_frozen_is_an_error() -> None:
    model = nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(ConfigError, match="FREEZE_CONV_BODY_AT"):
        build_optimizer(_cfg(), model)


def _with_gradients(*values: float) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor([value])
    return [*parameters, nn.Parameter(torch.zeros(3))]


@pytest.mark.parametrize(
    ("clipper", "expected"),
    [
        (GradientClipper(), [3.0, -4.0]),
        (GradientClipper("norm", 2.5), [1.5, -2.0]),
        (GradientClipper("norm", 10.0), [3.0, -4.0]),
        (GradientClipper("value", 3.5), [3.0, -3.5]),
    ],
)
def test_clipping(clipper: GradientClipper, expected: list[float]) -> None:
    parameters = _with_gradients(3.0, -4.0)
    assert float(clipper(parameters)) == pytest.approx(5.0)
    assert [float(p.grad) for p in parameters[:2]] == pytest.approx(expected, rel=1e-5)
    assert parameters[2].grad is None


def test_norm_shows_bad_gradients_and_no_gradients() -> None:
    assert math.isnan(float(GradientClipper()(_with_gradients(1.0, math.nan))))
    assert float(GradientClipper()([])) == 0.0


@pytest.mark.parametrize(("kind", "limit", "key"), [("both", 1.0, "TYPE"), ("norm", 0.0, "VALUE")])
def test_clipping_refuses_bad_values(kind: str, limit: float, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        GradientClipper(kind, limit)


@pytest.mark.parametrize(
    ("name", "dtype", "scales"),
    [
        ("float32", torch.float32, False),
        ("bfloat16", torch.bfloat16, False),
        ("float16", torch.float16, True),
    ],
)
def test_precision(name: str, dtype: torch.dtype, scales: bool) -> None:
    precision = Precision.from_cfg(CfgNode({"DTYPE": name}), torch.device("cpu"))
    layer = nn.Linear(4, 4)
    with precision.autocast():
        assert layer(torch.ones(2, 4)).dtype == dtype
    assert precision.scaler.is_enabled() == scales
    assert layer.weight.dtype == torch.float32


def test_unknown_precision() -> None:
    with pytest.raises(ConfigError, match="DTYPE is 'int8'"):
        Precision.from_cfg(CfgNode({"DTYPE": "int8"}), torch.device("cpu"))
