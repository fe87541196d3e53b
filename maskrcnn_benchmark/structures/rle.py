"""Run-length encoded masks of one object, as COCO stores them: reading, rasterising polygons, decoding.

A mask is a dict {"size": [height, width], "counts": bytes}, its counts in COCO's compressed text: lengths of
alternating background and foreground runs down the columns. One native decoder (csrc/evaluation/rle.h)
decides for training and evaluation whether a text describes a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.utils.native import load_ops

# Problems of a compressed text by their code in csrc/evaluation/rle.h.
PROBLEMS = (
    "",
    "its size is negative or too large",
    "a character that is not of the compressed format",
    "its counts end in the middle of a number",
    "a run of negative length",
    "its runs do not add up to height * width",
)
WRONG_SUM = 5
MAX_SIDE = 2**32 - 1
"""Of a mask, and of its pixels."""
MANY = 2**62
"""Sums of run lengths are exact below it."""


def rle_from_polygons(polygons: Sequence[Tensor], height: int, width: int) -> dict[str, Any]:
    """Encode the union of flat polygons (2 * points,) x0, y0, ... in an image, pixels as by pycocotools.

    Memory and time are bounded by the image and the number of points, wherever these are. Polygons of fewer
    than three points enclose nothing. Raises ValueError for an image without pixels or of more than 2^32, and
    for an outline that crosses the columns of the image more than 2^28 times.
    """
    load_ops()
    points = torch.cat([torch.zeros(0, dtype=torch.float64), *(p.to(torch.float64) for p in polygons)])
    starts = np.cumsum([0, *(len(polygon) // 2 for polygon in polygons)])
    text, _ = torch.ops.maskrcnn_benchmark.rle_from_polygons(
        points.reshape(-1, 2),
        torch.from_numpy(starts),
        torch.tensor([0, len(polygons)]),
        torch.tensor([[height, width]]),
    )
    return {"size": [height, width], "counts": text.numpy().tobytes()}


def read_rle(entry: Mapping[str, Any], image_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Read a run-length dict with counts as text, bytes or a list of whole numbers; size [height, width].

    `image_size`: (width, height) that it must have. Raises ValueError when the dict is none, has another
    size, or when its runs do not fill the mask exactly.
    """
    missing = {"size", "counts"} - entry.keys()
    if missing:
        raise ValueError(f"run lengths without {' and '.join(sorted(missing))}")
    counts = entry["counts"]
    height, width = _sides(entry["size"])
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError("run lengths that are no whole numbers from 0 on")
        _check_sum(sum(counts), height, width)
    elif not isinstance(counts, str | bytes):
        raise ValueError(f"run lengths of type {type(counts).__name__}; expected text or a list")
    if image_size is not None and (width, height) != image_size:
        raise ValueError(f"mask of size (w,h)={(width, height)} in an image of size {image_size}")
    if isinstance(counts, list):
        counts = _compress(counts, height, width)
    elif isinstance(counts, str):
        counts = counts.encode("utf-8", "surrogatepass")  # characters beyond ASCII are refused below
    rle = {"size": [height, width], "counts": counts}
    _check(rle)
    return rle


def decode_rle(rle: Mapping[str, Any]) -> Tensor:
    """Bitmap (h, w), bool, of a compressed run-length dict. Raises ValueError when it describes no mask."""
    load_ops()
    height, width = rle["size"]
    try:
        masks = torch.ops.maskrcnn_benchmark.rle_decode(*_columns(rle), height, width)
    except ValueError:
        _check(rle)
        raise
    return masks[0].T


def _check(rle: Mapping[str, Any]) -> None:
    """Raise ValueError unless the compressed runs fill the mask."""
    load_ops()
    (problem,) = torch.ops.maskrcnn_benchmark.rle_measure(*_columns(rle))[2].tolist()
    height, width = rle["size"]
    if problem == WRONG_SUM:
        _check_sum(int(torch.ops.maskrcnn_benchmark.rle_sums(*_columns(rle))), height, width)
    if problem:
        raise ValueError(
            f"run lengths that do not describe a mask of (w,h)={(width, height)} ({PROBLEMS[problem]})"
        )


def _check_sum(total: int, height: int, width: int) -> None:
    """Raise ValueError unless the runs are as many pixels as the mask."""
    if total != height * width:
        pixels = f"{total}" if total < MANY else f"{MANY} or more"
        raise ValueError(f"run lengths of {pixels} pixels in a mask of (h,w)={(height, width)}")


def _columns(rle: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Text and table as the native operations take them."""
    text = torch.from_numpy(np.frombuffer(bytearray(rle["counts"]), np.uint8))
    return text, torch.tensor([[0, len(text), *rle["size"]]])


def _sides(size: Any) -> tuple[int, int]:
    """Height and width of a size [height, width]; ValueError for anything else."""
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(v, int) for v in size)):
        raise ValueError(f"run lengths with the size {str(size)[:80]}; expected [height, width]")
    if all(0 <= side <= MAX_SIDE for side in size):
        return int(size[0]), int(size[1])
    raise ValueError(f"run lengths with the size {str(size)[:80]}; expected [height, width]")


def _compress(counts: list[int], height: int, width: int) -> bytes:
    """Compressed text of run lengths whose sum is height * width."""
    if height * width > MAX_SIDE:
        raise ValueError(f"run lengths of a mask of (h,w)={(height, width)} ({PROBLEMS[1]})")
    load_ops()
    text, _ = torch.ops.maskrcnn_benchmark.rle_from_runs(
        torch.tensor(counts, dtype=torch.int64),
        torch.tensor([0, len(counts)]),
        torch.tensor([[height, width]]),
    )
    return text.numpy().tobytes()
