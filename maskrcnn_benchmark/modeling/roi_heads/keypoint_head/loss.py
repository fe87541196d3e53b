"""Keypoint targets and loss (He et al. 2017, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError


def keypoints_to_heatmap(points: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Quantise keypoints to the size x size heat map over their boxes.

    points: (N, K, 3) x, y, visibility; boxes: (N, 4) xyxy. Returns flat heat map indices (y * size + x) int64
    (N, K), 0 for invalid keypoints, and bool (N, K): valid, which is labelled and inside the box.
    parity: a box is x2 - x1 wide here (no +1), and a point on its right or lower edge is in the last cell.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    xy = points[..., :2]
    scale = size / (high - low).clamp(min=torch.finfo(boxes.dtype).tiny)
    cells = ((xy - low) * scale).floor()
    cells = torch.where(xy == high, size - 1, cells)
    valid = ((cells >= 0) & (cells < size)).all(dim=2) & (points[..., 2] > 0)
    cells = torch.where(valid[..., None], cells, 0).long()
    return cells[..., 1] * size + cells[..., 0], valid


def has_keypoint_in_box(target: BoxList) -> Tensor:
    """Return bool (G,): whether the object has a labelled keypoint (field `keypoints`) inside its own box."""
    points, boxes = _points(target), target.xyxy()[:, None]
    inside = ((points[..., :2] >= boxes[..., :2]) & (points[..., :2] <= boxes[..., 2:])).all(dim=2)
    return (inside & (points[..., 2] > 0)).any(dim=1)


def keypoint_targets(
    positives: Sequence[BoxList], targets: Sequence[BoxList], size: int
) -> tuple[Tensor, Tensor]:
    """Return heat map indices int64 and validity bool, both (sum n_i, K), of the matched keypoints.

    positives: per image boxes with field `matched_idxs`; targets: ground truth with field `keypoints`.
    """
    indices, valid = [], []
    for positive, target in zip(positives, targets, strict=True):
        boxes = positive.xyxy().detach().float()
        points = _points(target).to(boxes)[positive.get_field("matched_idxs")]
        image_index, image_valid = keypoints_to_heatmap(points, boxes, size)
        indices.append(image_index)
        valid.append(image_valid)
    return torch.cat(indices), torch.cat(valid)


def keypoint_loss(logits: Tensor, index: Tensor, valid: Tensor) -> LossTerm:
    """Return the unnormalised cross entropy over the M * M locations of logits (N, K, M, M).

    index: int64 (N, K), target location; valid: bool (N, K), keypoints that count. Without any of them it is
    a zero connected to the graph.
    """
    valid_logits = logits.flatten(2)[valid].float()
    return LossTerm(F.cross_entropy(valid_logits, index[valid], reduction="sum"), len(valid_logits))


def _points(target: BoxList) -> Tensor:
    """Keypoints (G, K, 3) of the ground truth; DataError when it has none."""
    if not target.has_field("keypoints"):
        raise DataError(
            "MODEL.KEYPOINT_ON is True, but the ground truth has no field 'keypoints': the annotation file "
            "needs 'keypoints' entries, or set MODEL.KEYPOINT_ON False"
        )
    return target.get_field("keypoints").points
