"""Ten thousand wrong calls of every native operation of evaluation: refused or survived, never a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.evaluation.rle import RleMasks
from maskrcnn_benchmark.utils.native import load_ops

CALLS = 10_000
DTYPES = (torch.float64, torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)


def bytes_tensor(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def good_arguments() -> dict[str, tuple[Any, ...]]:
    """A correct call of every operation: 2 cells, 3 detections, 2 ground truths."""
    starts = torch.tensor([0, 2, 3])
    truths = torch.tensor([0, 1, 2])
    crowd = torch.tensor([False, True])
    boxes = torch.rand(3, 4, dtype=torch.float64)
    masks = RleMasks.from_dicts([{"size": [3, 4], "counts": "264"}] * 3).tensors()
    column = torch.rand(3, dtype=torch.float64)
    points = torch.linspace(0, 1, 5, dtype=torch.float64)
    ignored = torch.zeros(4, 2, dtype=torch.bool)
    text = b'[{"image_id":1,"category_id":2,"score":0.5,"bbox":[1,2,3,4]}]'
    record = b'{"segmentation":[[0,0,3,0,3,2]]}'
    records = (bytes_tensor(record * 2), torch.tensor([[0, len(record)], [len(record), 2 * len(record)]]))
    records = (*records, torch.tensor([[3, 4], [3, 4]]))
    none = torch.zeros(3, dtype=torch.bool)
    streamed = (
        [torch.tensor([0, 2, 1]), torch.tensor([1, 0]), starts, truths, torch.tensor([0, 2])],
        [column, column, none],
        [column[:2], crowd, crowd],
        [points, torch.rand(4, 2, dtype=torch.float64), points],
        [1, 100],
    )
    annotations = b'{"images":[],"annotations":[{"id":1,"image_id":1,"category_id":1,"bbox":[1,2,3,4]},{}]}'
    return {
        "box_iou": (boxes, boxes[:2], crowd, starts, truths),
        "mask_iou": (*masks, *records, crowd, starts, truths),
        "box_precision": (boxes, boxes[:2], *streamed),
        "mask_precision": (*masks, *records, *streamed),
        "group_pairs": (
            torch.tensor([0, 1, 0]),
            torch.tensor([1, -1, 0]),
            column,
            torch.tensor([1, 1]),
            torch.tensor([0, 1]),
            2,
            2,
            3,
        ),
        "rle_from_records": records,
        "scan_annotations": (bytes_tensor(annotations),),
        "match_detections": (
            column,
            starts,
            truths,
            column,
            torch.zeros(3, dtype=torch.bool),
            column[:2],
            crowd,
            crowd,
            points,
            torch.rand(4, 2, dtype=torch.float64),
        ),
        "accumulate_precision": (
            torch.zeros(4, 5, 3, dtype=torch.uint8),
            ignored,
            column,
            torch.arange(3),
            starts,
            truths,
            points,
            [1, 100],
        ),
        "rle_measure": masks,
        "rle_from_polygons": (
            torch.rand(6, 2, dtype=torch.float64) * 9,
            torch.tensor([0, 3, 6]),
            torch.tensor([0, 2]),
            torch.tensor([[9, 8]]),
        ),
        "rle_from_runs": (
            torch.tensor([5, 3, 4, 0, 12]),
            torch.tensor([0, 3, 5]),
            torch.tensor([[3, 4], [3, 4]]),
        ),
        "rle_decode": (*masks, 3, 4),
        "rle_sums": masks,
        "parse_detections": (bytes_tensor(text),),
    }


def spoiled(value: Any, rng: np.random.Generator) -> Any:
    """An argument with another shape, data type, layout or content."""
    if isinstance(value, list) and isinstance(value[0], torch.Tensor):
        changed = list(value)
        place = int(rng.integers(len(value)))
        changed[place] = spoiled(value[place], rng)
        return changed[: int(rng.integers(1, 9))]
    if isinstance(value, int):
        return int(rng.choice([-1, 0, 1, 3, 4, 7, 2**31, 2**32, 2**62, -(2**62)]))
    if not isinstance(value, torch.Tensor):
        return [int(v) for v in rng.integers(-3, 4, int(rng.integers(0, 4)))]
    kind = int(rng.integers(0, 9))
    if kind == 0:
        return value.to(DTYPES[int(rng.integers(len(DTYPES)))])
    if kind == 1:
        return torch.zeros([int(n) for n in rng.integers(0, 5, int(rng.integers(0, 4)))], dtype=value.dtype)
    if kind == 2:
        return value[: int(rng.integers(0, len(value) + 1))]
    if kind == 3:
        return torch.cat([value, value])[:: int(rng.integers(1, 3))]
    if kind == 4:
        return value.unsqueeze(0) if rng.random() < 0.5 else value.flip(0)
    if kind == 5 and value.dtype == torch.uint8:
        return torch.from_numpy(rng.integers(0, 256, int(rng.integers(0, 60)), np.uint8))
    if kind == 5 and value.is_floating_point():
        far = 10.0 ** rng.uniform(0, 12, value.shape) * rng.choice([-1, 1], value.shape)
        return torch.from_numpy(far).to(value.dtype)
    if kind == 6:
        return value.repeat(int(rng.integers(2, 50)), *[1] * (value.dim() - 1))
    changed = value.clone().reshape(-1)
    for _ in range(int(rng.integers(1, 4)) if changed.numel() else 0):
        if value.is_floating_point():
            extreme = torch.tensor([np.nan, np.inf, -np.inf, -1.0, 1e300, 0.0], dtype=torch.float64)
        else:
            extreme = torch.tensor(
                [-1, 0, 1, 7, 255, 2**20, 2**31, 2**32, 2**62, -(2**62), 2**63 - 1, -(2**63)]
            )
        choice = extreme[int(rng.integers(len(extreme)))].to(value.dtype)
        changed[int(rng.integers(changed.numel()))] = choice
    return changed.reshape(value.shape)


@pytest.mark.parametrize("name", sorted(good_arguments()))
def test_wrong_arguments_are_refused_or_survived(name: str) -> None:
    load_ops()
    op = getattr(torch.ops.maskrcnn_benchmark, name)
    arguments = good_arguments()[name]
    op(*arguments)  # a correct call
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(CALLS):
        wrong = list(arguments)
        for _ in range(int(rng.integers(1, 3))):
            place = int(rng.integers(len(wrong)))
            wrong[place] = spoiled(arguments[place], rng)
        try:
            op(*wrong)
        except (ValueError, TypeError, RuntimeError) as error:
            refused += 1
            assert name in str(error) or name == "parse_detections"
    assert refused > CALLS // 10
