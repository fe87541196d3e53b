"""Process group and device from the environment."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

from maskrcnn_benchmark.engine.launch import (
    add_launch_arguments,
    agree_on_name,
    distributed,
    local_rank,
    rank_device,
)
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import ConfigError, DeviceError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("spelling", ["--local_rank", "--local-rank"])
def test_both_spellings_of_the_rank(spelling: str) -> None:
    parser = argparse.ArgumentParser()
    add_launch_arguments(parser)
    assert parser.parse_args([f"{spelling}=3"]).local_rank == 3
    assert parser.parse_args([]).local_rank is None


def test_rank_from_argument_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert local_rank() == 2
    assert local_rank(1) == 1
    monkeypatch.setenv("LOCAL_RANK", "two")
    with pytest.raises(ConfigError, match=r"LOCAL_RANK is 'two'"):
        local_rank()


def test_each_process_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert rank_device("auto", 1) == torch.device("cuda", 1)
    assert rank_device("cuda:0", 1) == torch.device("cuda", 0)
    assert rank_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(DeviceError, match="local rank 2"):
        rank_device("cuda", 2)


def test_one_process_has_no_group() -> None:
    with distributed("cpu") as device:
        assert device == torch.device("cpu")
        assert not dist.is_initialized()


def test_incomplete_environment_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(ConfigError, match=r"RANK, MASTER_ADDR, MASTER_PORT is not set.*torchrun"),
        distributed("cpu"),
    ):
        pass


def test_a_new_start_does_not_believe_what_the_last_one_left(free_port: int) -> None:
    """The processes of one start agree_on_name on a name of its own, also when one comes late."""
    host = dist.TCPStore("localhost", free_port, 3, is_master=True, wait_for_workers=False)
    clients = [dist.TCPStore("localhost", free_port, 3, is_master=False) for _ in range(3)]

    def start(delays: list[float]) -> set[str]:
        def member(rank: int) -> str:
            time.sleep(delays[rank])
            return agree_on_name(clients[rank], rank, 3)

        with ThreadPoolExecutor(3) as pool:
            return set(pool.map(member, range(3)))

    names = [start(delays) for delays in ([0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.1, 0.3])]
    assert [len(name) for name in names] == [1, 1, 1] and len(set.union(*names)) == 3
    # one that died between its word and its answer
    clients[0].set("start/word/0", "of a killed process")
    assert len(start([0.2, 0.0, 0.0])) == 1
    del host


def _member(rank: int, port: int, results: list) -> None:
    import os

    os.environ.update(
        WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="localhost", MASTER_PORT=str(port)
    )
    with distributed("cpu"):
        found = (dist.get_backend(), comm.all_gather_objects(rank))
    results.put((found, dist.is_initialized()))


@pytest.mark.dist
def test_two_processes_meet_and_leave(free_port: int) -> None:
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    members = [context.Process(target=_member, args=(rank, free_port, results)) for rank in range(2)]
    for member in members:
        member.start()
    found = [results.get(timeout=600) for _ in members]
    for member in members:
        member.join(600)
    assert found == [(("gloo", [0, 1]), False)] * 2
