"""Anchor boxes, inclusive pixels (Ren et al. 2015, section 3.1.1; with FPN Lin et al. 2017, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


def generate_cell_anchors(stride: int, sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """Generate the anchors (A, 4) float32 xyxy of the cell at the origin, A = len(ratios) * len(sizes).

    Ratios (height / width) are the outer loop, sizes the inner. parity: widths and heights are rounded (half
    to even) on a window of the stride's size and scaled afterwards, so ratios are inexact for small strides;
    the arithmetic is float64.
    """
    centre = (stride - 1) / 2
    anchors = []
    for ratio in aspect_ratios:
        width = round(math.sqrt(stride * stride / ratio))
        height = round(width * ratio)
        for size in sizes:
            half_w = (width * size / stride - 1) / 2
            half_h = (height * size / stride - 1) / 2
            anchors.append((centre - half_w, centre - half_h, centre + half_w, centre + half_h))
    return torch.tensor(anchors, dtype=torch.float64).to(torch.float32)


class BufferList(nn.Module):
    """List of tensors kept as buffers "0", "1", ..., which move and are saved with the module."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        for i, tensor in enumerate(tensors):
            self.register_buffer(str(i), tensor)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._buffers)

    def __getitem__(self, index: int) -> Tensor:
        """Return tensor `index`."""
        return self.get_buffer(str(index))


class AnchorGenerator(nn.Module):
    """Anchors of every level, and whether they lie inside an image.

    `cell_anchors` holds float32 buffers (A, 4) per level; published checkpoints contain them.
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
        """Build from MODEL.RPN: with USE_FPN one size (or tuple) per stride, else all sizes on one stride."""
        node = cfg.MODEL.RPN
        sizes, strides = tuple(node.ANCHOR_SIZES), tuple(node.ANCHOR_STRIDE)
        if node.USE_FPN and len(sizes) != len(strides):
            raise ConfigError(
                f"MODEL.RPN.ANCHOR_SIZES has {len(sizes)} entries, MODEL.RPN.ANCHOR_STRIDE {len(strides)}: "
                "with MODEL.RPN.USE_FPN every level needs one of each"
            )
        if not node.USE_FPN and len(strides) != 1:
            raise ConfigError(f"MODEL.RPN.ANCHOR_STRIDE must have one entry without USE_FPN, got {strides}")
        levels = [s if isinstance(s, (tuple, list)) else (s,) for s in sizes] if node.USE_FPN else [sizes]
        if len({len(level) for level in levels}) > 1:
            raise ConfigError(f"MODEL.RPN.ANCHOR_SIZES must give every level equally many sizes, got {sizes}")
        ratios = tuple(node.ASPECT_RATIOS)
        cells = [
            generate_cell_anchors(stride, level, ratios)
            for stride, level in zip(strides, levels, strict=True)
        ]
        return cls(cells, strides, node.STRADDLE_THRESH)

    def num_anchors_per_location(self) -> list[int]:
        """Return A, the number of anchors per feature location, for every level."""
        return [len(self.cell_anchors[i]) for i in range(len(self.cell_anchors))]

    def forward(self, grid_sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return per level (H*W*A, 4) float32 xyxy anchors in order (y, x, anchor), for grids (H, W).

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
        y = torch.arange(0, grid[0] * stride, stride, dtype=cells.dtype, device=cells.device)
        x = torch.arange(0, grid[1] * stride, stride, dtype=cells.dtype, device=cells.device)
        anchors = cells.expand(grid[0], grid[1], -1, -1).clone()
        anchors[..., 0::2] += x[None, :, None, None]
        anchors[..., 1::2] += y[:, None, None, None]
        return anchors.reshape(-1, 4)

    def visibility(self, anchors: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return bool (N,): which of the anchors (N, 4) cross the image border by at most the threshold.

        `image_size` is (height, width) before padding; a negative STRADDLE_THRESH makes all anchors visible.
        """
        if self.straddle_thresh < 0:
            return torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
        height, width = image_size
        low = anchors[:, :2].amin(dim=1) >= -self.straddle_thresh
        right = anchors[:, 2] < width + self.straddle_thresh
        return low & right & (anchors[:, 3] < height + self.straddle_thresh)
