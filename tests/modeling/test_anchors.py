"""Anchor boxes, their grids and visibility."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.modeling.anchors import AnchorGenerator, generate_cell_anchors
from maskrcnn_benchmark.utils.errors import ConfigError


def test_published_first_anchor() -> None:
    cells = generate_cell_anchors(16, (128, 256, 512), (0.5, 1.0, 2.0))
    assert cells.dtype == torch.float32 and cells.shape == (9, 4)
    assert cells[0].tolist() == [-84, -40, 99, 55]


def test_order_is_ratio_then_size() -> None:
    cells = generate_cell_anchors(8, (8, 16), (1.0, 4.0))
    width = cells[:, 2] - cells[:, 0] + 1
    height = cells[:, 3] - cells[:, 1] + 1
    assert width.tolist() == [8, 16, 4, 8]
    assert height.tolist() == [8, 16, 16, 32]


def test_grid_walks_rows_then_columns_then_anchors() -> None:
    generator = AnchorGenerator([generate_cell_anchors(4, (8,), (1.0, 2.0))], [4], 0)
    (grid,) = generator([(2, 3)])
    cells = generator.cell_anchors[0]
    expected = [
        cells[a] + torch.tensor([4.0 * x, 4.0 * y] * 2) for y in range(2) for x in range(3) for a in range(2)
    ]
    assert torch.equal(grid, torch.stack(expected))


@pytest.mark.parametrize(
    ("thresh", "expected"), [(0, [True, False, False]), (5, [True, True, False]), (-1, [True] * 3)]
)
def test_visibility(thresh: int, expected: list[bool]) -> None:
    generator = AnchorGenerator([generate_cell_anchors(4, (8,), (1.0,))], [4], thresh)
    anchors = torch.tensor([[0.0, 0, 9, 9], [-5, 0, 24, 9], [0, 0, 100, 9]])
    assert generator.visibility(anchors, (10, 20)).tolist() == expected


def test_state_holds_float_cells() -> None:
    cfg = get_cfg()
    state = AnchorGenerator.from_cfg(cfg).state_dict()
    assert {k: v.shape for k, v in state.items()} == {"cell_anchors.0": (15, 4)}
    assert state["cell_anchors.0"].dtype == torch.float32


def test_wrong_numbers_of_levels_are_named() -> None:
    cfg = get_cfg()
    cfg.MODEL.RPN.USE_FPN = True
    with pytest.raises(ConfigError, match="ANCHOR_STRIDE"):
        AnchorGenerator.from_cfg(cfg)
    cfg.MODEL.RPN.ANCHOR_STRIDE = (4, 8, 16, 32, 64)
    with pytest.raises(ConfigError, match="4 feature maps"):
        AnchorGenerator.from_cfg(cfg)([(2, 2)] * 4)
