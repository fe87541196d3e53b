"""Several processes of one run: the process group and the device of each process."""

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

from maskrcnn_benchmark.utils.env import resolve_device
from maskrcnn_benchmark.utils.errors import ConfigError, DeviceError

# Rank 0 evaluates large data sets alone while the others wait.
TIMEOUT = datetime.timedelta(hours=3)
POLL_SECONDS = 0.05


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every distributed tool: torch.distributed.launch passes the local rank."""
    parser.add_argument(
        "--local_rank",
        "--local-rank",
        type=int,
        default=None,
        help="number of the process on this machine (set by torch.distributed.launch)",
    )


def _environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"environment variable {name} is {text!r}, expected a number") from None


def local_rank(argument: int | None = None) -> int:
    """Number of this process on its machine: the command line's, else LOCAL_RANK, else 0."""
    return _environment_number("LOCAL_RANK", 0) if argument is None else argument


def process_device(name: str, rank_here: int | None = None) -> torch.device:
    """Device of this process for the value of MODEL.DEVICE.

    Without an index, process `n` of a machine takes GPU `n`. Raises DeviceError when the machine has
    fewer GPUs than processes, or no GPU although one is asked for.
    """
    device = resolve_device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    index, count = local_rank(rank_here), torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            f"process {index} of this machine has no GPU of its own ({count} found): start fewer"
        )
    return torch.device("cuda", index)


def agree(store: dist.Store, rank: int, world: int) -> str:
    """A name that the `world` processes of this start agree on, and that no earlier start has used.

    torchrun starts killed processes anew with the store that it has; in it, they would find the addresses
    of their predecessors. So every process says a random word; the name is made of the words of all. It
    holds when every process has answered with it: an answer that contains a process's new word is no old one.

    Raises ConfigError when the others do not come within `TIMEOUT`.
    """
    words = [f"start/word/{r}" for r in range(world)]
    answers = [f"start/answer/{r}" for r in range(world)]
    store.set(words[rank], secrets.token_hex(16))
    end = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < end:
        name = hashlib.sha256(b"".join(store.multi_get(words))).hexdigest()
        store.set(answers[rank], name)
        if all(answer.decode() == name for answer in store.multi_get(answers)):
            return name
        time.sleep(POLL_SECONDS)
    raise ConfigError(
        f"process {rank} waited {TIMEOUT} for the other processes of {world}: start all of them"
    )


def _join(backend: str) -> None:
    """Meet the other processes where the environment says."""
    store, rank, world = next(dist.rendezvous("env://", timeout=TIMEOUT))
    own = dist.PrefixStore(agree(store, rank, world), store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=TIMEOUT)


@contextmanager
def distributed(device_name: str, rank_argument: int | None = None) -> Iterator[torch.device]:
    """Join the process group that torchrun's environment describes, and leave it at the end.

    One process (WORLD_SIZE missing or 1) gets no group. gloo moves CPU tensors, nccl GPU tensors. Gives the
    device of this process. LOCAL_RANK is set from `rank_argument` for the code below.
    """
    if rank_argument is not None:
        os.environ["LOCAL_RANK"] = str(rank_argument)
    device = process_device(device_name)
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
    _join("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()
        # A gloo thread that frees a tensor while Python shuts down aborts the process. Freeing the group,
        # which DistributedDataParallel (part of reference cycles) holds, joins its threads.
        gc.collect()
