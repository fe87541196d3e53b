"""utils.comm: on one rank, and between two gloo ranks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from maskrcnn_benchmark.utils import comm


def test_alone() -> None:
    assert (comm.get_rank(), comm.get_world_size(), comm.is_main_process()) == (0, 1, True)
    comm.barrier()
    assert comm.all_gather_objects({"a": 1}) == [{"a": 1}]
    assert comm.broadcast_object("x") == "x"
    loss = torch.tensor(2.0, requires_grad=True)
    reduced = comm.reduce_mean({"loss": loss})
    assert reduced["loss"] == 2 and not reduced["loss"].requires_grad


def _process(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        assert comm.get_rank() == rank and comm.is_main_process() == (rank == 0)
        payload = {"rank": rank, "text": "x" * (rank * 1000), "big": torch.full((5,), rank)}
        gathered = comm.all_gather_objects(payload)
        assert [g["rank"] for g in gathered] == list(range(world))
        assert len(gathered[1]["text"]) == 1000 and torch.equal(gathered[1]["big"], torch.ones(5).long())
        assert comm.broadcast_object(f"from {rank}", src=1) == "from 1"
        assert comm.broadcast_object(None if rank else [1, 2]) == [1, 2]
        # The order of the keys may differ between processes.
        values = {"a": torch.tensor(float(rank)), "b": torch.tensor(10.0 * rank)}
        mean = comm.reduce_mean(values if rank else dict(reversed(values.items())))
        assert float(mean["a"]) == 0.5 and float(mean["b"]) == 5
        assert comm.reduce_mean({}) == {}
        comm.barrier()
        (Path(folder) / f"ok{rank}").touch()
    finally:
        dist.destroy_process_group()


@pytest.mark.dist
def test_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    mp.spawn(_process, args=(2, str(tmp_path)), nprocs=2)
    assert {"ok0", "ok1"} <= set(os.listdir(tmp_path))
