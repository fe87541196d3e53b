"""A loss that is not finite: the state is saved, the message says what to do, and the run can resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.engine.finite_check import NONFINITE_FILE, NonFiniteError
from maskrcnn_benchmark.engine.train import TrainSummary, train

CLASSES = ["__background__", "thing"]
Fakes = dict[str, Callable]


def _run(cfg: CfgNode, model: nn.Module, stream: Callable, folder: Path, **more: Any) -> TrainSummary:
    return train(cfg, model, stream, output_dir=str(folder), max_iter=10, classes=CLASSES, **more)


def _with_nan(fake: Fakes, bad: int) -> Callable[[int], Iterator]:
    """The stream with a NaN in batch `bad`, whose images have the indices 100 + 2 * batch + 0 or 1."""

    def batches(start: int) -> Iterator:
        for number, batch in enumerate(fake["stream"](start, bad=bad), start):
            batch.indices = [100 + 2 * number, 101 + 2 * number]
            yield batch

    return batches


def test_message_file_and_checkpoint(fake: Fakes, tmp_path: Path) -> None:
    model, good = fake["model"](), fake["model"]()
    cfg = fake["cfg"](CHECKPOINT_PERIOD=4)
    with pytest.raises(NonFiniteError) as raised:
        _run(cfg, model, _with_nan(fake, 5), tmp_path, image_name=lambda i: f"{i}.jpg")
    message = str(raised.value)
    for text in (
        "training stopped at iteration 6: loss_a is nan (image ids 10, 11); loss_b is nan (image ids 10, 11)",
        f"all that was trained is saved in {tmp_path / 'model_0000005.pth'}",
        "(110.jpg, 111.jpg)",
        "the learning rate (0.1 now)",
        "SOLVER.BASE_LR 0.05 or SOLVER.CLIP_GRADIENTS.ENABLED True",
    ):
        assert text in message, text
    assert "\n" not in message
    record = json.loads((tmp_path / NONFINITE_FILE).read_text())
    assert (record["iteration"], record["learning_rate"]) == (6, 0.1)
    assert record["checkpoint"] == "model_0000005.pth"
    assert record["values"] == {"loss_a": "nan", "loss_b": "nan"} | record["values"]
    cause = {"value": "nan", "image_ids": [10, 11], "files": ["110.jpg", "111.jpg"]}
    assert record["causes"] == [{"name": "loss_a", **cause}, {"name": "loss_b", **cause}]
    # the weights are those after five good iterations, the optimizer's state with them
    train(cfg, good, fake["stream"], output_dir=str(tmp_path / "good"), max_iter=5, classes=CLASSES)
    stored, expected = (
        torch.load(path, weights_only=True)
        for path in (tmp_path / "model_0000005.pth", tmp_path / "good" / "model_final.pth")
    )
    for name, tensor in expected["model"].items():
        assert torch.equal(stored["model"][name], tensor)
    for one, two in zip(
        stored["optimizer"]["state"].values(), expected["optimizer"]["state"].values(), strict=True
    ):
        assert torch.equal(one["momentum_buffer"], two["momentum_buffer"])
    assert not (tmp_path / "model_final.pth").exists()


def test_same_command_stops_again_and_a_fix_resumes(fake: Fakes, tmp_path: Path) -> None:
    messages = []
    for _ in range(2):
        with pytest.raises(NonFiniteError) as raised:
            _run(fake["cfg"](), fake["model"](), _with_nan(fake, 5), tmp_path)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    fixed, whole = fake["model"](), fake["model"]()
    summary = _run(fake["cfg"](), fixed, fake["stream"], tmp_path)
    assert summary.start_iteration == 5 and not (tmp_path / NONFINITE_FILE).exists()
    _run(fake["cfg"](), whole, fake["stream"], tmp_path / "whole")
    assert all(
        torch.equal(a, b)
        for a, b in zip(fixed.state_dict().values(), whole.state_dict().values(), strict=True)
    )


def test_nothing_trained_before_it(fake: Fakes, tmp_path: Path) -> None:
    model = fake["model"]()
    with pytest.raises(NonFiniteError, match="at iteration 1: .*nothing had been trained before it"):
        _run(fake["cfg"](), model, _with_nan(fake, 0), tmp_path)
    assert not list(tmp_path.glob("*.pth"))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_infinite_loss_of_one_of_several_batches(fake: Fakes, tmp_path: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Any) -> dict[str, Tensor]:
            big = inputs.images.isnan().any()
            return {"fine": self.weight.sum(), "large": self.weight.sum() * (math.inf if big else 1.0)}

    with pytest.raises(NonFiniteError, match=r"iteration 3: large is inf \(image ids 10, 11\)") as raised:
        _run(fake["cfg"](ACCUMULATION_STEPS=2), Large(), _with_nan(fake, 5), tmp_path)
    assert [c.name for c in raised.value.causes] == ["large"]
    assert "fine is" not in str(raised.value)


class _Root(nn.Module):
    """A finite loss whose gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """0 with the gradient 0 * inf."""
        return {"loss_only": (self.weight * 0).sum().sqrt()}


def test_non_finite_gradient_of_a_finite_loss(fake: Fakes, tmp_path: Path) -> None:
    model = _Root()
    with pytest.raises(NonFiniteError, match=r"gradient norm is nan \(image ids 0, 1\)"):
        _run(fake["cfg"](), model, fake["stream"], tmp_path)
    assert torch.equal(model.weight, torch.zeros(3))


def test_loss_scaling_does_not_hide_a_non_finite_gradient(fake: Fakes, tmp_path: Path) -> None:
    cfg = fake["cfg"]()
    cfg.defrost()
    cfg.DTYPE = "float16"
    model = _Root()
    with pytest.raises(NonFiniteError, match=r"at iteration 27: gradient norm is nan"):
        train(cfg, model, fake["stream"], output_dir=str(tmp_path), max_iter=40, classes=CLASSES)
    assert torch.equal(model.weight, torch.zeros(3))


def test_suggestion_for_a_phase(fake: Fakes, tmp_path: Path) -> None:
    cfg = fake["cfg"]()
    cfg.defrost()
    cfg.LST.ENABLED, cfg.LST.PHASE = True, 3
    with pytest.raises(NonFiniteError) as raised:
        _run(cfg, fake["model"](), _with_nan(fake, 2), tmp_path)
    assert "LST.PHASE_OVERRIDES \"{'3': ['SOLVER.BASE_LR', 0.05]}\"" in str(raised.value)
