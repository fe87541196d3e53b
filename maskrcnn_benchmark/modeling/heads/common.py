"""Pieces that several one-stage heads share: locations, reading of feature maps, focal loss, results."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.losses import sigmoid_focal_loss
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs
from maskrcnn_benchmark.structures.geometry import Size
from maskrcnn_benchmark.utils.errors import ConfigError


def require_strides(features: FeatureSpecs, strides: Sequence[int], key: str) -> None:
    """Raise ConfigError unless the feature maps have the `strides` that the config names under `key`."""
    given = [spec.stride for spec in features]
    if given != list(strides):
        raise ConfigError(
            f"{key} is {list(strides)}, but the feature maps of MODEL.BACKBONE.CONV_BODY have strides "
            f"{given}: set {key} to these"
        )


def prior_bias(probability: float) -> float:
    """Bias of class logits that makes every score `probability` before training (Lin et al. 2017)."""
    return -math.log((1 - probability) / probability)


def grid_locations(sizes: Sequence[Size], strides: Sequence[int], device: torch.device) -> list[Tensor]:
    """Centres of all grid cells: per level (H*W, 2) float32 x, y in pixels of the network input, row by row.

    sizes: (H, W) of every map. The first location lies half a stride from the edge; parity: half of an odd
    stride is rounded down.
    """
    levels = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y = torch.arange(height, dtype=torch.float32, device=device) * stride + stride // 2
        x = torch.arange(width, dtype=torch.float32, device=device) * stride + stride // 2
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        levels.append(torch.stack((grid_x.flatten(), grid_y.flatten()), dim=1))
    return levels


def distances_to_boxes(locations: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy at distances (..., 4) left, top, right, bottom from locations (..., 2)."""
    return torch.cat((locations - distances[..., :2], locations + distances[..., 2:]), dim=-1)


def flatten_map(m: Tensor, width: int) -> Tensor:
    """Flatten a map (B, A*width, H, W) to (B, H*W*A, width) by y, x, anchor; a view if channels-last."""
    batch, _, height, columns = m.shape
    return m.reshape(batch, -1, width, height, columns).permute(0, 3, 4, 1, 2).reshape(batch, -1, width)


def gather_at_points(maps: Sequence[Tensor], image: Tensor, point: Tensor) -> Tensor:
    """Gather values (n, C) of maps, per level (B, C, H, W), at points (n,) of images (n,).

    point: index of a location, counted row by row over all levels.
    """
    values, start = maps[0].new_empty((len(point), maps[0].shape[1])), 0
    for level in maps:
        height, width = level.shape[-2:]
        on_level = ((point >= start) & (point < start + height * width)).nonzero().flatten()
        cell = point[on_level] - start
        row = torch.div(cell, width, rounding_mode="floor")
        values = values.index_put((on_level,), level[image[on_level], :, row, cell % width])
        start += height * width
    return values


def multilevel_focal_loss(logits: Sequence[Tensor], labels: Tensor, *, gamma: float, alpha: float) -> Tensor:
    """Sigmoid focal loss (Lin et al. 2017, section 3), summed over all levels (scalar).

    Per level logits (B, N_l, C); labels (B, N), N = sum of N_l, 0 is background. The maps, which hold
    millions of values, are not concatenated.
    """
    parts = labels.split([level.shape[1] for level in logits], dim=1)
    sums = [
        sigmoid_focal_loss(level.flatten(0, 1), part.flatten(), gamma=gamma, alpha=alpha)
        for level, part in zip(logits, parts, strict=True)
    ]
    return torch.stack(sums).sum()


def detection_boxlist(boxes: Tensor, scores: Tensor, labels: Tensor, size: Size) -> BoxList:
    """BoxList of boxes (n, 4) xyxy in an image of `size` (height, width), with scores and labels (n,)."""
    result = BoxList(boxes, (size[1], size[0]), mode="xyxy")
    result.add_field("scores", scores)
    result.add_field("labels", labels)
    return result
