"""Resources of this computer: memory, shared memory, processors, GPUs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Return the free bytes of main memory, within the limit of a container; None where not known."""
    system = _meminfo("MemAvailable")
    limit, used = (_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    left = None if limit is None or used is None else max(0, limit - used)
    known = [value for value in (system, left) if value is not None]
    return min(known) if known else None


def resident_bytes() -> int:
    """Return the bytes of main memory that this process holds; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_shared_memory() -> int | None:
    """Return the free bytes of /dev/shm, through which data workers hand over batches; None without it."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return None


def processors() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_gpu_memory(device: torch.device) -> int | None:
    """Return the free bytes of a GPU; None for other devices."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0]


def _meminfo(name: str) -> int | None:
    """Return the bytes of an entry of /proc/meminfo; None where there is no such file or entry."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else None


def _number(path: Path) -> int | None:
    """Return the number in a file; None without the file, or when it holds no number ("max")."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
