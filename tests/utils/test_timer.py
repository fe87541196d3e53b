"""Time per stage: each part counts once, and replaced attributes are restored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.utils.timer import Elapsed, StageTimer, median_of

CPU = torch.device("cpu")


class FakeTime:
    """Simulated time that advances on sleep."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        """Advance the time."""
        self.seconds += seconds

    def now(self, device: torch.device) -> Elapsed:
        """Both clocks; CPU time is half of the wall-clock time."""
        return Elapsed(self.seconds, self.seconds / 2)


time = FakeTime()


@pytest.fixture(autouse=True)
def _fake_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrcnn_benchmark.utils.timer.now", time.now)


class Whole(nn.Module):
    """A module with a slow child, a slow method and a plain object."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(2, 2)
        self.twin = self.child
        self.helper = Helper()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Child, method, helper."""
        time.sleep(0.01)
        return self.slow(self.twin(self.child(x)))

    def slow(self, x: torch.Tensor) -> torch.Tensor:
        """Sleeps, and calls the helper."""
        time.sleep(0.02)
        return self.helper(x) * self.helper.factor


class Helper:
    """A callable object with an attribute."""

    factor = 1.0

    def __init__(self) -> None:
        self.factor = 2.0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Sleeps."""
        time.sleep(0.03)
        return x


def test_a_stage_counts_its_own_time_alone() -> None:
    clock, model = StageTimer(CPU), Whole()
    clock.parts(model, {"forward": "whole", "slow": "slow", "helper": "helper", "no.such.part": "nothing"})
    for _ in range(3):
        model(torch.zeros(1, 2))
        clock.end_round()
    clock.restore()
    for stage, seconds in (("whole", 0.01), ("slow", 0.02), ("helper", 0.03)):
        times = clock.times(stage)
        assert len(times) == 3
        assert median_of(times).to_ms().wall == pytest.approx(1000 * seconds), stage
        assert median_of(times).cpu == pytest.approx(seconds / 2), stage
    assert list(clock.rounds[0]) == ["whole", "slow", "helper"]
    assert clock.times("nothing") == [Elapsed()] * 3


def test_everything_is_put_back() -> None:
    clock, model = StageTimer(CPU), Whole()
    helper = model.helper
    own = model.slow
    model.slow = own  # an attribute of the object itself stays one
    clock.parts(model, {"child": "a", "twin": "b", "slow": "c", "helper": "d"})
    assert "forward" in vars(model.child) and model.helper is not helper
    model(torch.zeros(1, 2))
    clock.end_round()
    assert "b" not in clock.rounds[0]  # a part is clocked once, under its first name
    clock.restore()
    assert "forward" not in vars(model.child) and model.helper is helper and model.slow is own
    model(torch.zeros(1, 2))
    clock.end_round()
    assert clock.rounds[-1] == {}


def test_an_error_ends_the_stage() -> None:
    clock = StageTimer(CPU)
    with pytest.raises(ValueError), clock.stage("a"), clock.stage("b"):
        raise ValueError
    with clock.stage("c"):
        pass
    clock.end_round()
    assert set(clock.rounds[0]) == {"a", "b", "c"}
