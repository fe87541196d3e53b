"""Distributed launch: the process group and the device of each rank."""

from __future__ import annotations

import argparse
import datetime
import gc
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from maskrcnn_benchmark.engine.rank_watch import RankWatch
from maskrcnn_benchmark.utils.env import resolve_device
from maskrcnn_benchmark.utils.errors import ConfigError, DeviceError

# Rank 0 evaluates large data sets alone while the others wait.
TIMEOUT = datetime.timedelta(hours=3)
POLL_SECONDS = 0.05


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every distributed tool: torch.distributed.launch passes the local rank."""
    parser.add_argument(
        "--local_rank",
        "--local-rank",
        type=int,
        default=None,
        help="rank of the process on this host (set by torch.distributed.launch)",
    )


def _environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"environment variable {name} is {text!r}, expected a number") from None


def local_rank(argument: int | None = None) -> int:
    """Return the local rank: the command line's, else LOCAL_RANK, else 0."""
    return _environment_number("LOCAL_RANK", 0) if argument is None else argument


def rank_device(name: str, local: int | None = None) -> torch.device:
    """Return the device of this rank for the value of MODEL.DEVICE.

    Without an index, local rank `n` uses GPU `n`. Raises DeviceError when the host has fewer GPUs than local
    ranks, or no GPU although one is requested.
    """
    device = resolve_device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    index, count = local_rank(local), torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            f"local rank {index} has no GPU of its own (this host has {count}): start fewer ranks"
        )
    return torch.device("cuda", index)


def agree_on_name(store: dist.Store, rank: int, world: int) -> str:
    """Return a name that the `world` ranks of this start agree on, and that no earlier start has used.

    torchrun restarts killed processes with the same store, which still holds the addresses of their
    predecessors. So every rank stores a random token, and the name is a hash of all tokens. It is valid when
    every rank has stored the same name: one that depends on a new token cannot be from an earlier start.

    Raises ConfigError when the other ranks do not come within `TIMEOUT`.
    """
    tokens = [f"start/word/{r}" for r in range(world)]
    names = [f"start/answer/{r}" for r in range(world)]
    store.set(tokens[rank], secrets.token_hex(16))
    end = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < end:
        name = hashlib.sha256(b"".join(store.multi_get(tokens))).hexdigest()
        store.set(names[rank], name)
        if all(stored.decode() == name for stored in store.multi_get(names)):
            return name
        time.sleep(POLL_SECONDS)
    raise ConfigError(f"rank {rank} waited {TIMEOUT} for the other ranks of {world}: start all of them")


def _join(backend: str) -> RankWatch:
    """Initialise the process group from the environment.

    Raises ConfigError when the other ranks cannot be reached.
    """
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=TIMEOUT))
        prefixed = dist.PrefixStore(agree_on_name(store, rank, world), store)
        dist.init_process_group(backend, store=prefixed, rank=rank, world_size=world, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        where = ", ".join(f"{name} {os.environ[name]}" for name in names)
        reason = str(error).strip().partition("\n")[0]
        problem = f"the ranks cannot meet ({where}): {reason}"
        raise ConfigError(f"{problem}; free the port or correct these") from None
    return RankWatch(prefixed, rank, world)


@contextmanager
def distributed(device_name: str, rank_argument: int | None = None) -> Iterator[torch.device]:
    """Join the process group that torchrun's environment describes, and leave it at the end.

    One process (WORLD_SIZE missing or 1) gets no group. gloo moves CPU tensors, nccl GPU tensors. Yields the
    device of this rank. LOCAL_RANK is set from `rank_argument` for the code inside.

    Raises ProcessError when another rank is lost, see `RankWatch`.
    """
    if rank_argument is not None:
        os.environ["LOCAL_RANK"] = str(rank_argument)
    device = rank_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if _environment_number("WORLD_SIZE", 1) <= 1 or dist.is_initialized():
        yield device
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {', '.join(missing)} is not set: start with "
            "torchrun --nproc_per_node N tools/train_net.py ..."
        )
    watch = _join("nccl" if device.type == "cuda" else "gloo")
    try:
        with watch:
            yield device
    finally:
        dist.destroy_process_group()
        # A gloo thread that frees a tensor while Python shuts down aborts the process. Freeing the group,
        # which DistributedDataParallel (part of reference cycles) holds, joins its threads.
        gc.collect()
