"""Keypoint targets and loss (core spec 11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError


def heat_cells(points: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cell of every keypoint in the size x size grid over its box.

    points: (N,K,3) x, y, visibility; boxes: (N,4) xyxy, paired with the points. Gives the flat cell (row *
    size + column) int64 (N,K), 0 where there is none, and bool (N,K): labelled and inside the box.
    parity: a box is x2 - x1 wide here (no +1), and a point on its right or lower edge is in the last cell.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    places = points[..., :2]
    scale = size / (high - low).clamp(min=torch.finfo(boxes.dtype).tiny)
    cells = ((places - low) * scale).floor()
    cells = torch.where(places == high, size - 1, cells)
    inside = ((cells >= 0) & (cells < size)).all(dim=2) & (points[..., 2] > 0)
    whole = torch.where(inside[..., None], cells, 0).long()
    return whole[..., 1] * size + whole[..., 0], inside


def usable(target: BoxList) -> Tensor:
    """Bool (G,): the object has a labelled keypoint inside its own box (field `keypoints`)."""
    points, boxes = _points(target), target.xyxy()[:, None]
    inside = ((points[..., :2] >= boxes[..., :2]) & (points[..., :2] <= boxes[..., 2:])).all(dim=2)
    return (inside & (points[..., 2] > 0)).any(dim=1)


def keypoint_targets(
    positives: Sequence[BoxList], targets: Sequence[BoxList], size: int
) -> tuple[Tensor, Tensor]:
    """`heat_cells` of the matched object's keypoints for all regions: (sum n_i, K) twice.

    positives: per image boxes with field `matched_idxs`; targets: ground truth with field `keypoints`.
    """
    cells, valid = [], []
    for positive, target in zip(positives, targets, strict=True):
        boxes = positive.xyxy().detach().float()
        points = _points(target).to(boxes)[positive.get_field("matched_idxs")]
        index, inside = heat_cells(points, boxes, size)
        cells.append(index)
        valid.append(inside)
    return torch.cat(cells), torch.cat(valid)


def keypoint_loss(logits: Tensor, cells: Tensor, valid: Tensor) -> LossTerm:
    """Cross entropy over the cells of logits (N,K,M,M) for the valid keypoints, not yet divided.

    cells int64 and valid bool (N,K). No valid keypoint: a zero connected to the graph.
    """
    chosen = logits.flatten(2)[valid].float()
    return LossTerm(F.cross_entropy(chosen, cells[valid], reduction="sum"), len(chosen))


def _points(target: BoxList) -> Tensor:
    """(G,K,3) of the ground truth; DataError when it has none."""
    if not target.has_field("keypoints"):
        raise DataError(
            "MODEL.KEYPOINT_ON is True, but the ground truth has no field 'keypoints': the annotation file "
            "needs 'keypoints' entries, or set MODEL.KEYPOINT_ON False"
        )
    return target.get_field("keypoints").points
