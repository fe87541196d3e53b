"""Seeds derived from one seed and the name of their use, so that no use disturbs another."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, *parts: int | str) -> int:
    """Derive a 63 bit seed for one use, e.g. `derive_seed(cfg.SEED, "train", iteration, rank)`.

    It is the same on all platforms and Python versions. 1 and "1" differ.
    """
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in (int(seed), *parts))
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """Make a CPU generator seeded with `derive_seed(seed, *parts)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def seed_all(seed: int, *parts: int | str) -> None:
    """Seed the default generators of `random`, numpy and torch (CPU and GPUs) with the derived seed."""
    value = derive_seed(seed, *parts)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
