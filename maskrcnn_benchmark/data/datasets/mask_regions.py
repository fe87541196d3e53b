"""Run-length masks of the regions of a map of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_utils


def region_rles(numbers: np.ndarray) -> dict[int, dict[str, Any]]:
    """For every number of an integer map (h, w), ascending: its region as COCO RLE with counts as text.

    One pass over the map finds the runs of all regions, so that the time hardly depends on their number.
    """
    height, width = numbers.shape
    column_wise = numbers.T.reshape(-1)
    starts = np.flatnonzero(np.r_[True, column_wise[1:] != column_wise[:-1]][: column_wise.size])
    ends = np.append(starts[1:], column_wise.size)
    owners = column_wise[starts]
    order = np.argsort(owners, kind="stable")
    found, firsts = np.unique(owners[order], return_index=True)
    return {
        int(number): _from_runs(starts[rows], ends[rows], height, width)
        for number, rows in zip(found, np.split(order, firsts[1:]), strict=True)
    }


def encode(mask: np.ndarray) -> dict[str, Any] | None:
    """COCO RLE of a bool mask (h, w) with counts as text; None for an empty one."""
    return region_rles(mask.astype(np.uint8)).get(1)


def _from_runs(starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """RLE of the pixels starts[i]:ends[i], counted down the columns."""
    bounds = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(bounds, prepend=0, append=height * width).tolist()
    if not counts[-1]:
        counts.pop()
    rle = mask_utils.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
