"""The training loop on a model of a few numbers: resume, interrupts, NaN, accumulation, evaluation."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.engine.train import TrainSummary, train
from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.rng import derive_seed

CLASSES = ["__background__", "thing"]
Fakes = dict[str, Callable]
TIMES = ("time", "data", "eta_seconds")


def _run(
    cfg: CfgNode, model: nn.Module, stream: Callable, folder: Path, iterations: int = 10, **more: Any
) -> TrainSummary:
    return train(cfg, model, stream, output_dir=str(folder), max_iter=iterations, classes=CLASSES, **more)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def _records(folder: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(folder / METRICS_FILE)]


def _interrupting(stream: Callable, after: int) -> Callable[[int], Iterator]:
    """`stream` during whose batch number `after` the user presses Ctrl-C."""

    def batches(start: int) -> Iterator:
        for number, batch in enumerate(stream(start), start):
            if number == after:
                signal.raise_signal(signal.SIGINT)
            yield batch

    return batches


def test_training_learns_and_leaves_its_files(fake: Fakes, tmp_path: Path) -> None:
    model = fake["model"]()
    summary = _run(fake["cfg"](), model, fake["stream"], tmp_path, 40)
    assert (summary.start_iteration, summary.iterations) == (0, 40)
    assert set(summary.losses) >= {"loss", "loss_a", "loss_b", "grad_norm", "time", "data"}
    records = _records(tmp_path)
    assert [r["iteration"] for r in records] == list(range(2, 41, 2))
    assert records[-1]["loss"] < 0.7 * records[0]["loss"]
    assert records[0]["loss"] == pytest.approx(records[0]["loss_a"] + records[0]["loss_b"], rel=0.5)
    assert Path(summary.weights) == tmp_path / "model_final.pth"
    for name in ("model_final.pth", "last_checkpoint", "config.yml", "tensorboard"):
        assert (tmp_path / name).exists(), name
    stored = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert torch.equal(stored["model"]["first.weight"], model.first.weight)


@pytest.mark.parametrize("settings", [{}, {"OPTIMIZER": "ADAMW"}, {"ACCUMULATION_STEPS": 2}])
def test_interrupted_run_ends_like_an_unbroken_one(fake: Fakes, tmp_path: Path, settings: dict) -> None:
    cfg = fake["cfg"](**settings)
    whole, broken, again = fake["model"](), fake["model"](), fake["model"]()
    _run(cfg, whole, fake["stream"], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _run(cfg, broken, _interrupting(fake["stream"], 4), tmp_path / "broken")
    assert not (tmp_path / "broken" / "model_final.pth").exists()
    torch.manual_seed(99)
    summary = _run(cfg, again, fake["stream"], tmp_path / "broken")
    assert summary.start_iteration == (5 if settings.get("ACCUMULATION_STEPS", 1) == 1 else 3)
    assert _same(whole, again)
    assert _records(tmp_path / "whole") == _records(tmp_path / "broken")


def test_killed_run_resumes_from_its_last_checkpoint(fake: Fakes, tmp_path: Path) -> None:
    cfg = fake["cfg"](CHECKPOINT_PERIOD=4)
    whole, again = fake["model"](), fake["model"]()
    _run(cfg, whole, fake["stream"], tmp_path / "whole")

    def dying(start: int) -> Iterator:
        yield from islice(fake["stream"](start), 7)
        raise SystemExit("killed")

    with pytest.raises(SystemExit):
        _run(cfg, fake["model"](), dying, tmp_path / "broken")
    summary = _run(cfg, again, fake["stream"], tmp_path / "broken")
    assert summary.start_iteration == 4
    assert _same(whole, again)
    assert _records(tmp_path / "whole") == _records(tmp_path / "broken")


def test_finished_run_does_nothing_and_longer_one_resumes(fake: Fakes, tmp_path: Path) -> None:
    cfg = fake["cfg"]()
    first = fake["model"]()
    _run(cfg, first, fake["stream"], tmp_path)

    def forbidden(start: int) -> Iterator:
        pytest.fail("a finished run must not ask for data")

    again = fake["model"]()
    summary = _run(cfg, again, forbidden, tmp_path)
    assert summary.start_iteration == summary.iterations == 10
    assert _same(first, again)
    longer = fake["model"]()
    assert _run(cfg, longer, fake["stream"], tmp_path, 12).start_iteration == 10
    whole = fake["model"]()
    _run(cfg, whole, fake["stream"], tmp_path / "whole", 12)
    assert _same(longer, whole)


def test_lost_final_file_is_written_again(fake: Fakes, tmp_path: Path) -> None:
    cfg = fake["cfg"](CHECKPOINT_PERIOD=5)
    model = fake["model"]()
    with pytest.raises(KeyboardInterrupt):
        _run(cfg, model, _interrupting(fake["stream"], 6), tmp_path)
    _run(cfg, model, lambda start: iter(()), tmp_path, 7)
    assert (tmp_path / "model_final.pth").exists()


def test_accumulation_equals_one_large_batch(fake: Fakes, tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, inputs: Any) -> dict[str, Tensor]:
            return {"loss_only": self.layer(inputs.images).square().mean()}

    torch.manual_seed(0)
    small = Plain()
    large = copy.deepcopy(small)
    _run(fake["cfg"](ACCUMULATION_STEPS=2), small, fake["stream"], tmp_path / "small", 6)

    def joined(start: int) -> Iterator:
        stream = fake["stream"](2 * start)
        while True:
            a, b = next(stream), next(stream)
            a.images = torch.cat([a.images, b.images])
            a.targets = a.targets + b.targets
            a.stream_indices = a.stream_indices + b.stream_indices
            a.query_classes = a.query_classes + b.query_classes
            yield a

    _run(fake["cfg"](), large, joined, tmp_path / "large", 6)
    torch.testing.assert_close(small.layer.weight, large.layer.weight, rtol=1e-6, atol=1e-7)


def test_data_that_ends_early_is_an_error(fake: Fakes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ended before iteration 4"):
        _run(fake["cfg"](), fake["model"](), lambda start: islice(fake["stream"](start), 3), tmp_path)


def test_query_classes_and_distillation_reach_the_model(fake: Fakes, tmp_path: Path) -> None:
    model = fake["model"]()
    _run(fake["cfg"](), model, fake["stream"], tmp_path, 1, distill=lambda b: StoredLogits(b.image_ids, []))
    seeds = [derive_seed(0, "picture", index) for index in (0, 1)]
    (inputs,) = model.calls
    assert (inputs.query_classes, inputs.seeds) == ([0, 0], seeds)
    assert inputs.stored_logits == StoredLogits([0, 1], []) and inputs.reference is None


def test_periodic_evaluation(fake: Fakes, tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def evaluate(model: nn.Module, iteration: int) -> dict:
        seen.append((iteration, model.training))
        torch.manual_seed(0)
        return {"segm/AP": 0.25, "note": "text is left out"}

    model, plain = fake["model"](), fake["model"]()
    summary = _run(fake["cfg"](TEST_PERIOD=4), model, fake["stream"], tmp_path / "a", evaluate=evaluate)
    assert seen == [(4, False), (8, False)]
    assert model.training
    assert summary.evaluations == {4: {"segm/AP": 0.25}, 8: {"segm/AP": 0.25}}
    lines = [r for r in _records(tmp_path / "a") if r["kind"] == "evaluation"]
    assert lines[0] == {"kind": "evaluation", "iteration": 4, "segm/AP": 0.25}
    _run(fake["cfg"](), plain, fake["stream"], tmp_path / "b")
    assert _same(model, plain)


def test_evaluation_lost_by_a_stop_is_made_up(fake: Fakes, tmp_path: Path) -> None:
    def stopped(model: nn.Module, iteration: int) -> dict:
        raise KeyboardInterrupt

    seen: list[int] = []

    def evaluate(model: nn.Module, iteration: int) -> dict:
        seen.append(iteration)
        return {"AP": 0.5}

    cfg = fake["cfg"](TEST_PERIOD=4)
    with pytest.raises(KeyboardInterrupt):
        _run(cfg, fake["model"](), fake["stream"], tmp_path, evaluate=stopped)
    _run(cfg, fake["model"](), fake["stream"], tmp_path, evaluate=evaluate)
    assert seen == [4, 8]


def test_initial_weights_only_when_nothing_is_resumed(fake: Fakes, tmp_path: Path) -> None:
    first = fake["model"]()
    summary = _run(fake["cfg"](), first, fake["stream"], tmp_path / "first")
    cfg = fake["cfg"]()
    cfg.defrost()
    cfg.MODEL.WEIGHT = summary.weights
    cfg.SOLVER.BASE_LR = 1e-9
    second = fake["model"]()
    assert _run(cfg, second, fake["stream"], tmp_path / "second", 1).start_iteration == 0
    torch.testing.assert_close(second.first.weight, first.first.weight)
    cfg.MODEL.WEIGHT = str(tmp_path / "missing.pth")
    assert _run(cfg, fake["model"](), fake["stream"], tmp_path / "second", 2).start_iteration == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_resumes_to_the_bit(fake: Fakes, tmp_path: Path, dtype: str) -> None:
    cfg = fake["cfg"]()
    cfg.defrost()
    cfg.DTYPE = dtype
    whole, again = fake["model"](), fake["model"]()
    _run(cfg, whole, fake["stream"], tmp_path / "whole")
    assert not _same(whole, fake["model"]())
    with pytest.raises(KeyboardInterrupt):
        _run(cfg, fake["model"](), _interrupting(fake["stream"], 4), tmp_path / "broken")
    _run(cfg, again, fake["stream"], tmp_path / "broken")
    assert _same(whole, again)


def test_float16_overflow_skips_the_update(fake: Fakes, tmp_path: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Any) -> dict[str, Tensor]:
            return {"loss_only": (self.weight * 1e35).sum()}

    cfg = fake["cfg"](LOG_PERIOD=1)
    cfg.defrost()
    cfg.DTYPE = "float16"
    model = Large()
    summary = _run(cfg, model, fake["stream"], tmp_path, 1)
    assert torch.equal(model.weight, torch.ones(1))
    assert "grad_norm" not in summary.losses
