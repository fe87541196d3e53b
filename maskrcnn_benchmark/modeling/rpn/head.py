"""Convolutional head of the region proposal network (Ren et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.initialization import gaussian
from maskrcnn_benchmark.modeling.registry import RPN_HEADS

if TYPE_CHECKING:
    from yacs.config import CfgNode


class RPNHead(nn.Module):
    """Contract of all heads.

    `forward` is for proposals, which need every anchor and no gradient; `at` is for the loss, which needs
    few anchors and their gradients.
    """

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level (B,C,H,W) -> logits (B,A,H,W) and deltas (B,4*A,H,W), channel = anchor*4 + part."""
        raise NotImplementedError

    def at(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 logits (K,) and deltas (K,4) of chosen anchors: what `forward` gives there.

        index: int64 (K,), image * (anchors per image) + anchor, anchors in the order of `flatten_levels`, one
        level after the other.
        """
        raise NotImplementedError


@RPN_HEADS.register("SingleConvRPNHead")
class SingleConvRPNHead(RPNHead):
    """3x3 convolution, ReLU and two 1x1 convolutions, shared by all levels."""

    def __init__(self, in_channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = gaussian(nn.Conv2d(in_channels, in_channels, 3, padding=1), std=0.01)
        self.cls_logits = gaussian(nn.Conv2d(in_channels, num_anchors, 1), std=0.01)
        self.bbox_pred = gaussian(nn.Conv2d(in_channels, num_anchors * 4, 1), std=0.01)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int, num_anchors: int) -> SingleConvRPNHead:
        """No key of its own."""
        return cls(in_channels, num_anchors)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level (B,C,H,W) -> logits (B,A,H,W) and deltas (B,4*A,H,W), channel = anchor*4 + part."""
        logits, deltas = [], []
        for feature in features:
            hidden = F.relu_(self.conv(feature))
            logits.append(self.cls_logits(hidden))
            deltas.append(self.bbox_pred(hidden))
        return logits, deltas

    def at(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """See RPNHead.

        Work and memory go with K, where the backward pass of the whole maps would spend
        as much as twice `forward` on gradients that are zero nearly everywhere.
        """
        shared = self.cls_logits.out_channels
        sizes = [f.shape[-2] * f.shape[-1] * shared for f in features]
        image, anchor = index // sum(sizes), index % sum(sizes)
        starts = [0, *accumulate(sizes)]
        level = torch.bucketize(anchor, torch.tensor(starts[1:], device=index.device), right=True)
        order = level.argsort(stable=True)
        counts = torch.bincount(level, minlength=len(sizes)).tolist()
        parts = zip(features, starts, image[order].split(counts), anchor[order].split(counts), strict=False)
        patches = [_patches(f, i, (a - start) // shared) for f, start, i, a in parts]
        hidden = F.relu_(_apply(self.conv, torch.cat(patches)))
        which = (anchor[order] % shared)[:, None]  # every level holds a multiple of `shared` anchors
        logits = _apply(self.cls_logits, hidden).gather(1, which)[:, 0]
        deltas = _apply(self.bbox_pred, hidden).reshape(-1, shared, 4)
        deltas = deltas.gather(1, which[:, :, None].expand(-1, 1, 4))[:, 0]
        back = order.argsort()
        return logits[back].float(), deltas[back].float()


def _patches(feature: Tensor, image: Tensor, cell: Tensor) -> Tensor:
    """Neighbourhoods (K, 9*C) of cells (row * W + column) (K,) of images (K,) of a map (B,C,H,W).

    Order (row, column, channel); zeros beyond the border, as the convolution pads.
    """
    channels, height, width = feature.shape[1:]
    near = torch.arange(-1, 2, device=cell.device)
    rows = (cell // width)[:, None, None] + near[:, None]
    columns = (cell % width)[:, None, None] + near
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    place = (image[:, None, None] * height + rows) * width + columns
    flat = feature.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of channels-last maps
    values = flat.index_select(0, place.flatten()).reshape(-1, 9, channels)
    return (values * inside.reshape(-1, 9, 1).to(values.dtype)).flatten(1)


def _apply(conv: nn.Conv2d, patches: Tensor) -> Tensor:
    """The convolution at one place per row: neighbourhoods (K, k*k*C) -> (K, out)."""
    return F.linear(patches, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)


def flatten_map(m: Tensor, width: int) -> Tensor:
    """Head map (B, A*width, H, W) -> (B, H*W*A, width), by row, column, anchor; a view if channels-last."""
    batch, _, height, columns = m.shape
    return m.reshape(batch, -1, width, height, columns).permute(0, 3, 4, 1, 2).reshape(batch, -1, width)


def flatten_levels(maps: Sequence[Tensor], width: int) -> list[Tensor]:
    """`flatten_map` of every level, in float32."""
    return [flatten_map(m, width).float() for m in maps]
