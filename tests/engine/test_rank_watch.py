"""A rank that stops or dies is named by the others, which stop too."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from maskrcnn_benchmark.engine import rank_watch
from maskrcnn_benchmark.engine.launch import distributed
from maskrcnn_benchmark.engine.rank_watch import RankWatch
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import ConfigError, DataError, ProcessError, run_cli

pytestmark = pytest.mark.dist
WORLD = 3


def _member(rank: int, port: int, folder: Path, last: Callable[[], None]) -> None:
    """One rank of a run whose rank 1 does something of its own; its standard error goes to a file."""
    os.environ.update(WORLD_SIZE=str(WORLD), RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    sys.stderr = open(folder / f"{rank}.txt", "w")  # noqa: SIM115

    def main() -> None:
        with distributed("cpu"):
            comm.all_gather_objects(rank)
            if rank == 1:
                last()
            comm.all_gather_objects(rank)

    run_cli(main)


@pytest.fixture
def run(tmp_path: Path, free_port: int) -> Callable[[Callable[[], None]], list[tuple[int | None, str]]]:
    """`run(last)`: exit status and message of every rank."""

    def start(last: Callable[[], None]) -> list[tuple[int | None, str]]:
        context = torch.multiprocessing.get_context("fork")
        members = [
            context.Process(target=_member, args=(rank, free_port, tmp_path, last)) for rank in range(WORLD)
        ]
        for member in members:
            member.start()
        for member in members:
            member.join(60)
        hang = [member for member in members if member.is_alive()]
        for member in hang:
            member.kill()
        assert not hang
        texts = [(tmp_path / f"{rank}.txt").read_text() for rank in range(WORLD)]
        return [(member.exitcode, text) for member, text in zip(members, texts, strict=True)]

    return start


def refuse() -> None:
    raise DataError("image 7 is missing")


def fail() -> None:
    raise KeyError("a bug")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_rank(run: Callable) -> None:
    ranks = run(die)
    assert ranks[1] == (-signal.SIGKILL, "")
    for rank in (0, 2):
        status, text = ranks[rank]
        assert status == 2 and text.startswith(f"error: rank {rank} stops: rank 1 (process id ")
        assert "out of memory" in text and text.count("\n") == 1


def test_a_rank_with_an_error_of_its_own(run: Callable) -> None:
    ranks = run(refuse)
    assert ranks[1] == (2, "error: image 7 is missing\n")
    for rank in (0, 2):
        assert ranks[rank][0] == 2 and "rank 1 has stopped (image 7 is missing);" in ranks[rank][1]


def test_a_bug_keeps_its_traceback_on_its_rank(run: Callable) -> None:
    ranks = run(fail)
    assert ranks[1][0] == 1
    assert all("rank 1 has stopped (KeyError: 'a bug')" in ranks[rank][1] for rank in (0, 2))


def test_errors_of_others_stay(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_watch, "PATIENCE_SECONDS", 0.1)
    store = dist.TCPStore("localhost", free_port, 1, is_master=True, wait_for_workers=False)
    with pytest.raises(RuntimeError, match="shapes"), RankWatch(store, 0, 1):
        raise RuntimeError("shapes of gloo, timed out by nobody".replace("timed out", "done"))
    with pytest.raises(ProcessError, match="lost or timed out"), RankWatch(store, 0, 1):
        raise RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1000ms for recv")


def test_ranks_that_cannot_meet(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port}
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, **address}.items():
        monkeypatch.setenv(name, str(value))
    occupied = dist.TCPStore("localhost", free_port, 1, is_master=True, wait_for_workers=False)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=f"cannot meet .*MASTER_PORT {free_port}"), distributed("cpu"):
        pass
    assert time.monotonic() - began < 30
    del occupied
