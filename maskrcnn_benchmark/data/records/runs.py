"""Run lengths and polygons of many records, measured by the native operations of evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.structures.rle import MAX_SIDE, PROBLEMS
from maskrcnn_benchmark.utils.native import load_ops


def measure_runs(values: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Measure checked run lengths (`read_segmentation`), compressed text or lists of counts.

    Returns pixels int64 (N,), tight boxes x, y, width, height int64 (N, 4), and for each the problem in words
    ("" when it describes a mask).
    """
    parts = _texts([value["counts"] for value in values], [value["size"] for value in values])
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    table = [
        (int(end) - len(part), len(part), *value["size"])
        for end, part, value in zip(ends, parts, values, strict=True)
    ]
    load_ops()
    areas, boxes, problems = torch.ops.maskrcnn_benchmark.rle_measure(
        torch.from_numpy(np.frombuffer(bytearray(b"".join([*parts, b" "])), np.uint8)),
        torch.from_numpy(_clipped(table)),
    )
    return areas.numpy(), boxes.numpy(), [PROBLEMS[code] for code in problems.tolist()]


def measure_polygons(shapes: Sequence[Sequence[Sequence[float]]], sizes: np.ndarray) -> np.ndarray:
    """Pixels int64 (N,) of the unions of polygons; sizes int64 (N, 2), height and width of their images."""
    lengths = [len(part) // 2 for shape in shapes for part in shape]
    flat = [value for shape in shapes for part in shape for value in part]
    load_ops()
    ops = torch.ops.maskrcnn_benchmark
    text, table = ops.rle_from_polygons(
        torch.from_numpy(np.array(flat, np.float64).reshape(-1, 2)),
        torch.from_numpy(np.cumsum([0, *lengths])),
        torch.from_numpy(np.cumsum([0, *(len(shape) for shape in shapes)])),
        torch.from_numpy(np.ascontiguousarray(sizes, np.int64)),
    )
    return ops.rle_measure(text, table)[0].numpy()


def _clipped(table: Sequence[tuple[int, ...]]) -> np.ndarray:
    """int64 (N, 4); sizes beyond 2^62 become a size that is refused as too large."""
    return np.array([[min(v, 2**62) for v in row] for row in table], np.int64).reshape(-1, 4)


def _texts(counts: Sequence[Any], sizes: Sequence[Sequence[int]]) -> list[bytes]:
    """The compressed texts of checked counts; of other characters than ASCII a text that is refused."""
    texts = [_as_bytes(value) for value in counts]
    # sizes beyond MAX_SIDE pixels are refused whatever the text
    listed = [
        i for i, value in enumerate(counts) if isinstance(value, list) and math.prod(sizes[i]) <= MAX_SIDE
    ]
    if listed:
        load_ops()
        text, table = torch.ops.maskrcnn_benchmark.rle_from_runs(
            torch.tensor([run for i in listed for run in counts[i]], dtype=torch.int64),
            torch.from_numpy(np.cumsum([0, *(len(counts[i]) for i in listed)])),
            torch.tensor([list(sizes[i]) for i in listed]),
        )
        joined = text.numpy().tobytes()
        for i, (begin, length) in zip(listed, table[:, :2].tolist(), strict=True):
            texts[i] = joined[begin : begin + length]
    return texts


def _as_bytes(counts: Any) -> bytes:
    """The bytes of a compressed text; b"" for a list of counts."""
    if isinstance(counts, str):
        return counts.encode() if counts.isascii() else b"~"
    return counts if isinstance(counts, bytes) else b""
