"""A flipped bit in a weight file is noticed, or changes nothing."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.utils.errors import CheckpointError


def _small_file(path: Path) -> Path:
    torch.manual_seed(0)
    model = {f"layer{i}.weight": torch.randn(3, i + 1) for i in range(4)}
    save_atomic({"model": model, "iteration": 3, "classes": ["__background__", "cat"]}, path)
    return path


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def _silent_changes(path: Path, bits: list[int]) -> list[int]:
    """Bits whose change is neither refused nor without effect."""
    whole, expected, silent = path.read_bytes(), read_checkpoint(path), []
    for bit in bits:
        data = bytearray(whole)
        data[bit >> 3] ^= 1 << (bit & 7)
        path.write_bytes(data)
        try:
            read = read_checkpoint(path)
        except CheckpointError as error:
            assert str(error).isprintable()
            continue
        if not _equal(read, expected):
            silent.append(bit)
    return silent


def test_some_bits(tmp_path: Path) -> None:
    path = _small_file(tmp_path / "w.pth")
    bits = random.Random(0).sample(range(8 * path.stat().st_size), 800)
    assert _silent_changes(path, bits) == []


@pytest.mark.slow
def test_every_bit(tmp_path: Path) -> None:
    path = _small_file(tmp_path / "w.pth")
    assert _silent_changes(path, list(range(8 * path.stat().st_size))) == []


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_files_without_checksums_end_in_errors_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        torch.save({"model": {"w": torch.ones(20)}}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"blobs": {"conv1_w": torch.ones(20).numpy()}}, protocol=2))
    whole = path.read_bytes()
    for bit in random.Random(1).sample(range(8 * len(whole)), 400):
        data = bytearray(whole)
        data[bit >> 3] ^= 1 << (bit & 7)
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert str(error).isprintable()
