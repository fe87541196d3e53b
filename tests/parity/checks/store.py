"""How the reference files hold arrays: samples with statistics, packed bits, names with a prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file (none if the file is absent). Raises DataError if it cannot be read."""
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable npz file ({error})") from None


def read_pair(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A description `<name>.json` and the arrays of `<name>.npz` beside it."""
    return read_json(path, what="reference file"), read_arrays(path.with_suffix(".npz"))


def thin(array: np.ndarray, limit: int) -> np.ndarray:
    """Every k-th element of the flat array, k = max(1, n // limit), cut to `limit`."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[:: max(1, len(flat) // limit)][:limit]


def statistics(array: np.ndarray) -> np.ndarray:
    """float64 (3,): mean, population std, largest absolute value."""
    values = np.asarray(array, np.float64)
    return np.array([values.mean(), values.std(), np.abs(values).max()])


def unpack(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bool array of `shape` from numpy.packbits over the flattened array."""
    count = int(np.prod(shape))
    return np.unpackbits(bits)[:count].reshape(shape).astype(bool)


def indexed(arrays: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """Arrays `name0, name1, ...` up to the first missing number; `name` may hold one `{}` for the
    number.
    """
    pattern = name if "{}" in name else name + "{}"
    result: list[np.ndarray] = []
    while pattern.format(len(result)) in arrays:
        result.append(arrays[pattern.format(len(result))])
    return result
