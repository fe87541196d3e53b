"""Run lengths and polygons of many records, measured by the native operations of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.structures.rle import PROBLEMS
from maskrcnn_benchmark.utils.native import load_ops


def measure_runs(values: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Measure checked run lengths (`read_segmentation`), compressed text or lists of counts.

    Returns pixels int64 (N,), tight boxes x, y, width, height int64 (N, 4), and for each the problem in words
    ("" when it describes a mask).
    """
    parts, table, begin = [], [], 0
    for value in values:
        part = _text(value["counts"])
        table.append((begin, len(part), *value["size"]))
        parts.append(part)
        begin += len(part)
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


def _text(counts: Any) -> bytes:
    """The compressed text of counts; of other characters than ASCII a text that is refused."""
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str):
        return counts.encode() if counts.isascii() else b"~"
    return compress(counts)


def compress(counts: Sequence[int]) -> bytes:
    """COCO's compressed text of a list of run lengths (maskApi.c, rleToString)."""
    out = bytearray()
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            digit = value & 0x1F
            value >>= 5
            more = value != -1 if digit & 0x10 else value != 0
            out.append((digit | 0x20 if more else digit) + 48)
    return bytes(out)
