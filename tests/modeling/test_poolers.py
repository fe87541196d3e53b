"""Level assignment and RoIAlign over a feature pyramid."""

from __future__ import annotations

import torch

from maskrcnn_benchmark.layers import assign_levels, roi_align
from maskrcnn_benchmark.modeling.poolers import Pooler, to_rois


def test_levels_of_square_boxes() -> None:
    side = torch.tensor([10.0, 111, 112, 223, 224, 448, 5000])
    boxes = torch.stack((torch.zeros(7), torch.zeros(7), side - 1, side - 1), dim=1)
    assert assign_levels(boxes, 2, 5).tolist() == [2, 2, 3, 3, 4, 5, 5]


def test_rois_carry_the_image_index() -> None:
    rois = to_rois([torch.ones(2, 4), torch.zeros(0, 4), torch.full((1, 4), 3.0)])
    assert rois[:, 0].tolist() == [0, 0, 2]
    assert to_rois([torch.zeros(0, 4)]).shape == (0, 5)


def test_boxes_of_all_levels_come_back_in_order() -> None:
    torch.manual_seed(0)
    features = [torch.randn(2, 3, 128 // s, 128 // s, requires_grad=True) for s in (4, 8, 16, 32)]
    scales = (0.25, 0.125, 0.0625, 0.03125)
    boxes = [
        torch.tensor([[0.0, 0, 500, 500], [3, 4, 30, 50], [0, 0, 120, 127]]),
        torch.tensor([[5.0, 5, 300, 260]]),
    ]
    pooled = Pooler(7, scales, 2)(features, boxes)
    levels = assign_levels(torch.cat(boxes), 2, 5) - 2
    assert len(set(levels.tolist())) >= 3
    for row, (roi, level) in enumerate(zip(to_rois(boxes), levels.tolist(), strict=True)):
        alone = roi_align(features[level], roi[None], (7, 7), scales[level], 2)[0]
        assert torch.allclose(pooled[row], alone, atol=1e-6)
    pooled.sum().backward()
    assert features[0].grad is not None and features[0].grad.abs().sum() > 0


def test_one_level_and_no_boxes() -> None:
    features = [torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 4)]
    pooler = Pooler(5, (0.25, 0.125), 2)
    assert pooler(features, [torch.zeros(0, 4)]).shape == (0, 3, 5, 5)
    assert pooler(features, [torch.tensor([[0.0, 0, 10, 10]])]).shape == (1, 3, 5, 5)
    assert Pooler(5, (0.25,), 0)(features[:1], [torch.zeros(0, 4)]).shape == (0, 3, 5, 5)
