"""From heat maps to keypoints (core spec 11, "Test")."""

from __future__ import annotations

import torch
from torch import Tensor

CUBIC = -0.75
"""parity: parameter a of the bicubic kernel."""


def cubic_matrix(sizes_in: int, size_out: int, device: torch.device) -> Tensor:
    """Float32 (size_out, sizes_in): bicubic resizing of a line as a matrix, half-pixel centres.

    The border is replicated, so every row sums to 1.
    """
    centre = (torch.arange(size_out, dtype=torch.float64, device=device) + 0.5) * (sizes_in / size_out) - 0.5
    first = centre.floor()
    distance = (centre - first)[:, None] + torch.tensor([1.0, 0.0, -1.0, -2.0], device=device)
    d = distance.abs()
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    far = ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC
    weights = torch.where(d <= 1, near, far)
    place = first.long()[:, None] + torch.arange(-1, 3, device=device)
    matrix = torch.zeros((size_out, sizes_in), dtype=torch.float64, device=device)
    return matrix.scatter_add_(1, place.clamp(0, sizes_in - 1), weights).float()


@torch.no_grad()
def decode_keypoints(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Points float32 (N,K,3) x, y, 1 in the image and the logit float32 (N,K) at each of them.

    maps: logits (N,K,M,M) over xyxy boxes (N,4). Every map is resized to its box in whole pixels (rounded up,
    at least one; a box is x2 - x1 wide here, parity), and the centre of the highest pixel is taken; of
    several, the first in reading order.
    """
    count, keypoints, side = maps.shape[:3]
    points = boxes.new_ones((count, keypoints, 3), dtype=torch.float32)
    best = boxes.new_zeros((count, keypoints), dtype=torch.float32)
    sizes = (boxes[:, 2:] - boxes[:, :2]).float().clamp(min=1)
    pixels = sizes.ceil()
    maps = maps.float()
    with torch.autocast(maps.device.type, enabled=False):
        for row, (width, height) in enumerate(pixels.long().tolist()):
            down = cubic_matrix(side, height, maps.device)
            across = cubic_matrix(side, width, maps.device)
            heat = (down @ maps[row]) @ across.t()
            best[row], place = heat.flatten(1).max(dim=1)
            points[row, :, 0] = (place % width).float()
            points[row, :, 1] = torch.div(place, width, rounding_mode="floor").float()
    step = (sizes / pixels)[:, None]
    points[..., :2] = (points[..., :2] + 0.5) * step + boxes[:, None, :2].float()
    return points, best
