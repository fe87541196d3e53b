"""Anchor boxes of the region proposal network (core spec 7), inclusive pixel convention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


def cell_anchors(stride: int, sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """Float32 (len(ratios) * len(sizes), 4) xyxy boxes of the cell at the origin; ratio outer, size inner.

    parity: widths and heights are rounded (half to even) on a window of the stride's size and scaled
    afterwards, so ratios (height / width) are inexact for small strides; the arithmetic is float64.
    """
    centre = (stride - 1) / 2
    rows = []
    for ratio in aspect_ratios:
        width = round(math.sqrt(stride * stride / ratio))
        height = round(width * ratio)
        for size in sizes:
            half_w = (width * size / stride - 1) / 2
            half_h = (height * size / stride - 1) / 2
            rows.append((centre - half_w, centre - half_h, centre + half_w, centre + half_h))
    return torch.tensor(rows, dtype=torch.float64).to(torch.float32)


class BufferList(nn.Module):
    """Tensors kept as buffers named "0", "1", ... so that they move and are saved with the module."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        for i, tensor in enumerate(tensors):
            self.register_buffer(str(i), tensor)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._buffers)

    def __getitem__(self, index: int) -> Tensor:
        """Tensor `index`."""
        return self.get_buffer(str(index))


class AnchorGenerator(nn.Module):
    """Anchors of every level, and which of them count for an image.

    `cell_anchors` is a list per level of float32 buffers (A,4); published files hold them.
    """

    def __init__(
        self,
        cells: Sequence[Tensor],
        strides: Sequence[int],
        straddle_thresh: int,
    ) -> None:
        super().__init__()
        if len(cells) != len(strides):
            raise ConfigError(f"{len(strides)} anchor strides for {len(cells)} levels of anchors")
        self.strides = tuple(strides)
        self.straddle_thresh = straddle_thresh
        self.cell_anchors = BufferList(cells)

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> AnchorGenerator:
        """From MODEL.RPN: with USE_FPN one size (or tuple) per stride, else all sizes on the one stride."""
        node = cfg.MODEL.RPN
        sizes, strides = tuple(node.ANCHOR_SIZES), tuple(node.ANCHOR_STRIDE)
        if node.USE_FPN and len(sizes) != len(strides):
            raise ConfigError(
                f"MODEL.RPN.ANCHOR_SIZES has {len(sizes)} entries, MODEL.RPN.ANCHOR_STRIDE {len(strides)}: "
                "with MODEL.RPN.USE_FPN every level needs one of each"
            )
        if not node.USE_FPN and len(strides) != 1:
            raise ConfigError(f"MODEL.RPN.ANCHOR_STRIDE must be one number without USE_FPN, got {strides}")
        levels = [s if isinstance(s, (tuple, list)) else (s,) for s in sizes] if node.USE_FPN else [sizes]
        if len({len(level) for level in levels}) > 1:
            raise ConfigError(f"MODEL.RPN.ANCHOR_SIZES must give every level equally many sizes, got {sizes}")
        ratios = tuple(node.ASPECT_RATIOS)
        cells = [cell_anchors(stride, level, ratios) for stride, level in zip(strides, levels, strict=True)]
        return cls(cells, strides, node.STRADDLE_THRESH)

    def num_anchors_per_location(self) -> list[int]:
        """A per level."""
        return [len(self.cell_anchors[i]) for i in range(len(self.cell_anchors))]

    def forward(self, grid_sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Per level (H*W*A, 4) float32 xyxy anchors in order (row, column, anchor), for grids (H, W).

        Raises ConfigError when the number of grids differs from the number of levels.
        """
        if len(grid_sizes) != len(self.strides):
            raise ConfigError(
                f"the backbone gives {len(grid_sizes)} feature maps, "
                f"but MODEL.RPN.ANCHOR_STRIDE has {len(self.strides)} entries"
            )
        return [
            self._level(self.cell_anchors[i], stride, grid)
            for i, (stride, grid) in enumerate(zip(self.strides, grid_sizes, strict=True))
        ]

    @staticmethod
    def _level(cells: Tensor, stride: int, grid: tuple[int, int]) -> Tensor:
        rows = torch.arange(0, grid[0] * stride, stride, dtype=cells.dtype, device=cells.device)
        columns = torch.arange(0, grid[1] * stride, stride, dtype=cells.dtype, device=cells.device)
        anchors = cells.expand(grid[0], grid[1], -1, -1).clone()
        anchors[..., 0::2] += columns[None, :, None, None]
        anchors[..., 1::2] += rows[:, None, None, None]
        return anchors.reshape(-1, 4)

    def visibility(self, anchors: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Bool (N,): anchors (N,4) that leave the image by at most the threshold.

        `image_size` is (height, width) before padding; a negative STRADDLE_THRESH makes all anchors visible.
        """
        if self.straddle_thresh < 0:
            return torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
        height, width = image_size
        low = anchors[:, :2].amin(dim=1) >= -self.straddle_thresh
        right = anchors[:, 2] < width + self.straddle_thresh
        return low & right & (anchors[:, 3] < height + self.straddle_thresh)
