"""Random numbers derived from one seed and the name of their use, so that no use disturbs another."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, *parts: int | str) -> int:
    """A 63 bit seed for one use, e.g. `derive_seed(cfg.SEED, "train", iteration, rank)`.

    The same on every machine and Python version. Text and numbers are told apart: 1 and "1" differ.
    """
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in (int(seed), *parts))
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator started from `derive_seed(seed, *parts)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def seed_all(seed: int, *parts: int | str) -> None:
    """Start the default generators of `random`, numpy and torch (CPU and GPUs) from the derived seed."""
    value = derive_seed(seed, *parts)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
