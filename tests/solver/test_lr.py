"""Learning-rate schedules against the published rule."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.solver.lr import LRSchedule
from maskrcnn_benchmark.utils.errors import ConfigError


def _optimizer(*lrs: float) -> torch.optim.SGD:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=0.1)


def _golden(project_root: Path) -> list[dict]:
    files = sorted((project_root / "tests" / "parity").rglob("components.json"))
    if not files:
        pytest.skip("the reference outputs are not there")
    return json.loads(files[0].read_text())["sections"]["lr"]["schedules"]


def test_published_schedules(project_root: Path) -> None:
    for case in _golden(project_root):
        schedule = LRSchedule(
            _optimizer(case["base_lr"]),
            steps=case["steps"],
            gamma=case["gamma"],
            warmup_iters=case["warmup_iters"],
            warmup_ratio=case["warmup_factor"],
            warmup_method=case["method"],
        )
        for iteration, lr in case["lr_at_iteration"]:
            schedule.load_state_dict({"iteration": iteration})
            assert schedule.optimizer.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-12)


def test_step_by_step_equals_direct_and_keeps_ratios() -> None:
    schedule = LRSchedule(_optimizer(0.01, 0.02), steps=(3, 5), gamma=0.5, warmup_iters=2, warmup_ratio=0.5)
    seen = []
    for _ in range(7):
        first, second = (group["lr"] for group in schedule.optimizer.param_groups)
        assert second == pytest.approx(2 * first)
        seen.append(first)
        schedule.step()
    assert seen == pytest.approx([0.005, 0.0075, 0.01, 0.005, 0.005, 0.0025, 0.0025])


def test_cosine_falls_from_base_to_zero() -> None:
    schedule = LRSchedule(_optimizer(1.0), method="cosine", max_iter=10)
    values = [schedule.factor(k) for k in range(12)]
    assert values[0] == 1.0
    assert values[5] == pytest.approx(0.5)
    assert values[10] == values[11] == pytest.approx(0.0)
    assert all(a >= b for a, b in zip(values, values[1:], strict=False))
    assert values[3] == pytest.approx(0.5 * (1 + math.cos(0.3 * math.pi)))


def test_resume_follows_the_config_and_not_the_stored_rates() -> None:
    optimizer = _optimizer(1.0)
    LRSchedule(optimizer, steps=(2,)).step()
    stored = optimizer.state_dict()
    stored["param_groups"][0]["lr"] = 123.0
    changed = _optimizer(0.5)
    schedule = LRSchedule(changed, steps=(2,), gamma=0.1)
    changed.load_state_dict(stored)
    schedule.load_state_dict({"iteration": 2})
    assert changed.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "exponential"}, "LR_SCHEDULER"),
        ({"warmup_method": "quadratic"}, "WARMUP_METHOD"),
        ({"steps": (5, 3)}, "ascending"),
    ],
)
def test_bad_values_name_the_key(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LRSchedule(_optimizer(1.0), **arguments)
