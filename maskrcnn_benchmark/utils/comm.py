"""Communication between the ranks of a run; without a process group there is one rank."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from maskrcnn_benchmark.utils.errors import UsageError


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of ranks of the run."""
    return dist.get_world_size() if _active() else 1


def get_rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if _active() else 0


def is_main_process() -> bool:
    """Whether this is rank 0, which writes the files and the log."""
    return get_rank() == 0


def barrier() -> None:
    """Wait until all ranks have called this."""
    if get_world_size() > 1:
        all_gather_objects(None)


def _object_group() -> dist.ProcessGroup | None:
    """Process group for host memory: the default one if it is gloo, else a gloo group made at first use."""
    if dist.get_backend() == "gloo":
        return None
    default = dist.distributed_c10d._get_default_group()
    group = getattr(default, "_cpu_side_group", None)
    if group is None:
        group = dist.new_group(backend="gloo")
        default._cpu_side_group = group  # type: ignore[attr-defined]
    return group


def _to_bytes(obj: Any) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)


def _from_bytes(data: Tensor) -> Any:
    return pickle.loads(data.numpy().tobytes())


def all_gather_objects(obj: Any) -> list[Any]:
    """Gather the objects of all ranks, in the order of ranks, through host memory.

    Only processes of the same run take part, so that unpickling is safe here.
    """
    world = get_world_size()
    if world == 1:
        return [obj]
    group = _object_group()
    data = _to_bytes(obj)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([data.numel()]), group=group)
    longest = int(max(int(s) for s in sizes))
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: data.numel()] = data
    parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(world)]
    dist.all_gather(parts, padded, group=group)
    return [_from_bytes(part[: int(size)]) for part, size in zip(parts, sizes, strict=True)]


def broadcast_object(obj: Any, src: int = 0) -> Any:
    """Broadcast the object of rank `src`; the argument of other ranks is ignored."""
    if get_world_size() == 1:
        return obj
    group = _object_group()
    data = _to_bytes(obj) if get_rank() == src else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([data.numel()])
    dist.broadcast(size, src, group=group)
    if get_rank() != src:
        data = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(data, src, group=group)
    return _from_bytes(data)


def on_main(action: Callable[[], Any]) -> Any:
    """Execute `action` on rank 0 and return its result on all ranks; collective.

    A UsageError of the action is raised on all ranks, so that none waits for another. The result is sent
    through host memory: keep it small.
    """
    result: Any = None
    error: UsageError | None = None
    if is_main_process():
        try:
            result = action()
        except UsageError as caught:
            error = caught
    error, result = broadcast_object((error, result))
    if error is not None:
        raise error
    return result


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum `values` (n, ...), of one shape and dtype on all ranks, over the ranks; no gradient."""
    if get_world_size() == 1:
        return values.detach()
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def reduce_mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean over the ranks of scalar tensors () by name; all ranks must pass the same keys. No gradient.

    The result is on the device of the inputs. Used for logging only.
    """
    world = get_world_size()
    if world == 1 or not values:
        return {k: v.detach() for k, v in values.items()}
    names = sorted(values)
    stacked = torch.stack([values[k].detach().float() for k in names])
    dist.all_reduce(stacked)
    stacked /= world
    return dict(zip(names, stacked.unbind(0), strict=True))
