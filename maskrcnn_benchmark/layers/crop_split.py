"""Crop split: one plane put together from the cells of many (Cao et al., SipMask, 2020; spec 4.1, 4.2).

SipMask predicts several masks per box, each meant for one part of it: with `cells` = 2 (the "2" of the
published `CropSplit(2)`) four masks, for the top left, top right, bottom left and bottom right quarter. Crop
split takes from each mask the quarter that it is meant for, and puts 0 outside the box:

    mask 0 | mask 1
    -------+-------     inside the box, 0 around it
    mask 2 | mask 3

`quadrant_masks` does this without making the planes of all cells; these operations are for planes that are
there already, in the published layout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.layers._ops import load_ops


def crop_split(data: Tensor, boxes: Tensor, cells: int = 2) -> Tensor:
    """(H, W, n) in the dtype of `data`: in each pixel of box i the plane of the cell it is in, 0 outside.

    data: (cells * cells, H, W, n), cells counted row by row; boxes: (n,4) xyxy in pixels of the plane. Pixel
    (x, y) is inside where x1 <= x < x2 and y1 <= y < y2; boxes may reach beyond the plane, inverted ones and
    those with a NaN are empty. A cell is (x2 - x1 + 0.1) / cells wide: the splits lie a little right of and
    below the even ones (parity: as published). Differentiable, even twice, in data. Raises ValueError
    (shapes, devices, cells outside 1..64) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.crop_split(data, boxes, cells)


def crop_split_gt(data: Tensor, boxes: Tensor) -> Tensor:
    """(H, W, n): `data` (H, W, n) inside box i of `boxes` (n, 4), 0 outside: `crop_split` with one cell.

    Differentiable in data. Raises as `crop_split` does.
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.crop_split(data[None], boxes, 1)
