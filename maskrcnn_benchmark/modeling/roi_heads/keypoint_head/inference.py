"""Keypoints from heat map logits (He et al. 2017, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor

CUBIC = -0.75
"""parity: parameter a of the bicubic kernel."""


def bicubic_matrix(size_in: int, size_out: int, device: torch.device) -> Tensor:
    """Return bicubic resizing of a line as a float32 matrix (size_out, size_in), half-pixel centres.

    The border is replicated, so every row sums to 1.
    """
    centre = (torch.arange(size_out, dtype=torch.float64, device=device) + 0.5) * (size_in / size_out) - 0.5
    first = centre.floor()
    distance = (centre - first)[:, None] + torch.tensor([1.0, 0.0, -1.0, -2.0], device=device)
    d = distance.abs()
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    far = ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC
    weights = torch.where(d <= 1, near, far)
    taps = first.long()[:, None] + torch.arange(-1, 3, device=device)
    matrix = torch.zeros((size_out, size_in), dtype=torch.float64, device=device)
    return matrix.scatter_add_(1, taps.clamp(0, size_in - 1), weights).float()


@torch.no_grad()
def heatmaps_to_keypoints(heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return keypoints float32 (N, K, 3) as x, y, 1 in the image and their heat map logits float32 (N, K).

    heatmaps: logits (N, K, M, M) over xyxy boxes (N, 4). Every heat map is resized to its box in whole pixels
    (rounded up, at least one; a box is x2 - x1 wide here, parity), and the centre of the highest pixel is
    the keypoint; among equal ones, the first in row-major order.
    """
    count, num_keypoints, side = heatmaps.shape[:3]
    points = boxes.new_ones((count, num_keypoints, 3), dtype=torch.float32)
    logits = boxes.new_zeros((count, num_keypoints), dtype=torch.float32)
    sizes = (boxes[:, 2:] - boxes[:, :2]).float().clamp(min=1)
    pixels = sizes.ceil()
    heatmaps = heatmaps.float()
    with torch.autocast(heatmaps.device.type, enabled=False):
        for i, (width, height) in enumerate(pixels.long().tolist()):
            vertical = bicubic_matrix(side, height, heatmaps.device)
            horizontal = bicubic_matrix(side, width, heatmaps.device)
            resized = (vertical @ heatmaps[i]) @ horizontal.t()
            logits[i], index = resized.flatten(1).max(dim=1)
            points[i, :, 0] = (index % width).float()
            points[i, :, 1] = torch.div(index, width, rounding_mode="floor").float()
    scale = (sizes / pixels)[:, None]
    points[..., :2] = (points[..., :2] + 0.5) * scale + boxes[:, None, :2].float()
    return points, logits
