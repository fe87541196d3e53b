"""Several gloo processes train like one with the same total batch, and stop together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.engine.train import train

MEMBERS = Path(__file__).with_name("members.py")
pytestmark = pytest.mark.dist


def _launch(case: str, folder: Path, project_root: Path, world: int = 2) -> list[dict]:
    """What every rank stored."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    paths = os.pathsep.join([str(project_root), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*command, str(MEMBERS), case, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_equal_one_process_with_the_same_total_batch(
    fake: dict[str, Callable], tmp_path: Path, project_root: Path, world: int
) -> None:
    ranks = _launch("plain", tmp_path, project_root, world)
    assert [r["error"] for r in ranks] == [""] * world
    single = fake["model"]()
    cfg = fake["cfg"](ACCUMULATION_STEPS=world)
    names = ["__background__", "thing"]
    summary = train(cfg, single, fake["stream"], output_dir=str(tmp_path / "one"), max_iter=8, classes=names)
    for rank in ranks:
        for name, tensor in single.state_dict().items():
            torch.testing.assert_close(rank["model"][name], tensor, rtol=1e-5, atol=1e-6)
        for name in ("loss", "loss_a", "loss_b", "grad_norm"):
            assert rank["losses"][name] == pytest.approx(summary.losses[name], rel=1e-5)


def test_interrupt_of_one_rank_stops_all_and_resumes_to_the_bit(tmp_path: Path, project_root: Path) -> None:
    whole = _launch("plain", tmp_path / "whole", project_root)
    stopped = _launch("interrupt", tmp_path / "broken", project_root)
    assert [r["error"] for r in stopped] == ["KeyboardInterrupt: "] * 2
    assert not (tmp_path / "broken" / "run" / "model_final.pth").exists()
    again = _launch("plain", tmp_path / "broken", project_root)
    for name, tensor in whole[0]["model"].items():
        assert torch.equal(tensor, again[0]["model"][name])
        assert torch.equal(tensor, again[1]["model"][name])


def test_nan_of_one_rank_stops_all_and_names_its_pictures(tmp_path: Path, project_root: Path) -> None:
    ranks = _launch("nan", tmp_path, project_root)
    assert ranks[0]["error"] == ranks[1]["error"]
    assert ranks[0]["error"].startswith("NonFiniteError: training stopped at iteration 5: loss_a is nan")
    assert "(image ids 18, 19)" in ranks[0]["error"]


def test_parameter_without_gradient_is_named(tmp_path: Path, project_root: Path) -> None:
    ranks = _launch("unused", tmp_path, project_root)
    assert all("extra.weight, extra.bias" in rank["error"] for rank in ranks)
