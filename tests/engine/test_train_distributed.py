"""Several gloo processes train like one with the same total batch, and stop together."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maskrcnn_benchmark.engine.train import train
from maskrcnn_benchmark.utils import comm

pytestmark = pytest.mark.dist
Fakes = dict[str, Callable]
Ranks = list[dict[str, Any]]
CLASSES = ["__background__", "thing"]


def _member(fake: Fakes, folder: Path, case: str) -> dict[str, Any]:
    """Train the fake model as one of several processes; what happened."""
    rank, world = comm.get_rank(), comm.get_world_size()
    model = fake["model"]()
    if rank:
        # Different weights on the other ranks: those of rank 0 must win.
        torch.nn.init.ones_(model.first.weight)
    if case == "unused":
        model.extra = torch.nn.Linear(1, 1)
    cfg = fake["cfg"](CHECKPOINT_PERIOD=2, LOG_PERIOD=100) if case == "full" else fake["cfg"]()

    def batches(start: int) -> Iterator:
        bad = 9 if case == "nan" else -1
        for number, batch in enumerate(fake["stream"](start, rank, world, bad=bad), start):
            if case == "interrupt" and rank == 1 and number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            if case == "full" and rank == 0 and number == 5:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            yield batch

    error, losses = "", {}
    try:
        losses = train(
            cfg, model, batches, output_dir=str(folder / "run"), max_iter=8, classes=CLASSES
        ).losses
    except (Exception, KeyboardInterrupt) as caught:
        error = f"{type(caught).__name__}: {caught}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {"model": model.state_dict(), "error": error, "losses": losses}


@pytest.fixture
def launch(fake: Fakes, train_ranks: Callable[..., Ranks]) -> Callable[..., Ranks]:
    """Function (case, folder, world=2) -> what every rank returned."""

    def run(case: str, folder: Path, world: int = 2) -> Ranks:
        return train_ranks(_member, world, fake, folder, case)

    return run


def _assert_same(whole: Ranks, other: Ranks) -> None:
    """Equal weights on all ranks, to the bit."""
    for name, tensor in whole[0]["model"].items():
        assert all(torch.equal(tensor, rank["model"][name]) for rank in other)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_equal_one_process_with_the_same_total_batch(
    fake: Fakes, launch: Callable[..., Ranks], tmp_path: Path, world: int
) -> None:
    ranks = launch("plain", tmp_path, world)
    assert [r["error"] for r in ranks] == [""] * world
    single = fake["model"]()
    cfg = fake["cfg"](ACCUMULATION_STEPS=world)
    summary = train(
        cfg, single, fake["stream"], output_dir=str(tmp_path / "one"), max_iter=8, classes=CLASSES
    )
    for rank in ranks:
        for name, tensor in single.state_dict().items():
            torch.testing.assert_close(rank["model"][name], tensor, rtol=1e-5, atol=1e-6)
        for name in ("loss", "loss_a", "loss_b", "grad_norm"):
            assert rank["losses"][name] == pytest.approx(summary.losses[name], rel=1e-5)


def test_interrupt_of_one_rank_stops_all_and_resumes_to_the_bit(
    launch: Callable[..., Ranks], tmp_path: Path
) -> None:
    whole = launch("plain", tmp_path / "whole")
    stopped = launch("interrupt", tmp_path / "broken")
    assert [r["error"] for r in stopped] == ["KeyboardInterrupt: "] * 2
    assert not (tmp_path / "broken" / "run" / "model_final.pth").exists()
    _assert_same(whole, launch("plain", tmp_path / "broken"))


def test_nan_of_one_rank_stops_all_saves_and_names_its_images(
    launch: Callable[..., Ranks], tmp_path: Path
) -> None:
    first = launch("nan", tmp_path)
    assert first[0]["error"] == first[1]["error"]
    assert first[0]["error"].startswith("NonFiniteError: training stopped at iteration 5: loss_a is nan")
    assert "(image ids 18, 19)" in first[0]["error"] and "model_0000004.pth" in first[0]["error"]
    causes = json.loads((tmp_path / "run" / "nonfinite.json").read_text())["causes"]
    assert [cause["image_ids"] for cause in causes] == [[18, 19]] * 2
    assert launch("nan", tmp_path)[1]["error"] == first[1]["error"]
    _assert_same(launch("plain", tmp_path / "whole"), launch("plain", tmp_path))


def test_full_disk_stops_all_ranks_with_one_error(launch: Callable[..., Ranks], tmp_path: Path) -> None:
    ranks = launch("full", tmp_path)
    assert ranks[0]["error"] == ranks[1]["error"]
    assert ranks[0]["error"].startswith("WriteError: ")
    assert "model_0000006.pth cannot be written: File too large" in ranks[0]["error"]
    kept = sorted(p.name for p in (tmp_path / "run").glob("*model*"))
    assert kept == ["model_0000002.pth", "model_0000004.pth"]
    _assert_same(launch("plain", tmp_path / "whole"), launch("plain", tmp_path))


def test_parameter_without_gradient_is_named(launch: Callable[..., Ranks], tmp_path: Path) -> None:
    assert all("extra.weight, extra.bias" in rank["error"] for rank in launch("unused", tmp_path))
