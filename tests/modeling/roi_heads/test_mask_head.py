"""Mask predictors, targets and loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.modeling.roi_heads.mask_head.head import RoIMaskHead
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import mask_loss, mask_targets
from maskrcnn_benchmark.modeling.roi_heads.mask_head.predictors import (
    MaskRCNNC4Predictor,
    MaskRCNNConv1x1Predictor,
    MaskXRCNNC4Predictor,
)
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import build_weight_transfer
from maskrcnn_benchmark.structures import BoxList, SegmentationMask
from maskrcnn_benchmark.utils.errors import DataError, UsageError

LABELS = torch.tensor([2, 0, 2, 4])


@pytest.mark.parametrize(
    "predictor",
    [
        MaskRCNNConv1x1Predictor(6, 5),
        MaskRCNNC4Predictor(6, 5, hidden=7),
        MaskXRCNNC4Predictor(6, hidden=7),
        MaskXRCNNC4Predictor(6, hidden=7, mask_side=8),
    ],
    ids=["conv1x1", "c4", "transfer", "transfer_mlp"],
)
def test_needed_channel_equals_all_channels(predictor: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 4, 4, requires_grad=True)
    rows = torch.randn(5, 7, requires_grad=True)
    one = predictor(x, LABELS, rows[LABELS])
    chosen = predictor.all_logits(x, rows)[torch.arange(4), LABELS]
    assert torch.allclose(one, chosen, atol=1e-5)
    leaves = [x, *predictor.parameters(), *([rows] if isinstance(predictor, MaskXRCNNC4Predictor) else [])]
    for a, b in zip(
        torch.autograd.grad(one.square().sum(), leaves),
        torch.autograd.grad(chosen.square().sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_memory_does_not_know_the_number_of_classes() -> None:
    sizes: list[int] = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    predictor = MaskRCNNC4Predictor(4, 1231, hidden=4)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
        predictor(torch.randn(8, 4, 14, 14), torch.arange(8)).sum()
    assert max(sizes) <= 8 * 4 * 28 * 28


def test_transfer_of_distinct_classes_equals_all() -> None:
    torch.manual_seed(0)
    transfer, weight = build_weight_transfer(6, 3), torch.randn(5, 6)
    assert list(transfer.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    distinct, inverse = LABELS.unique(return_inverse=True)
    assert torch.allclose(transfer(weight[distinct])[inverse], transfer(weight)[LABELS], atol=1e-6)


@pytest.mark.parametrize("form", ["poly", "mask"])
def test_targets_fill_the_covered_half(form: str) -> None:
    size = (40, 30)
    bitmap = np.zeros((1, 30, 40), dtype=bool)
    bitmap[0, :, :20] = True
    masks = (
        SegmentationMask([[[0.0, 0, 20, 0, 20, 30, 0, 30]]], size)
        if form == "poly"
        else SegmentationMask(torch.from_numpy(bitmap), size, "mask")
    )
    target = BoxList(torch.tensor([[0.0, 0, 19, 29]]), size)
    target.add_field("masks", masks)
    positives = BoxList(torch.tensor([[10.0, 0, 30, 20], [0, 0, 19, 29]]), size)
    positives.add_field("matched_idxs", torch.tensor([0, 0]))
    result = mask_targets([positives], [target], 14)
    assert result.shape == (2, 14, 14) and result.dtype == torch.float32
    assert result[0, :, :6].min() == 1 and result[0, :, 8:].max() == 0
    assert result[1].mean() > 0.9


def test_no_positives_and_missing_masks() -> None:
    target = BoxList(torch.tensor([[0.0, 0, 19, 29]]), (40, 30))
    positives = BoxList(torch.zeros(0, 4), (40, 30))
    positives.add_field("matched_idxs", torch.zeros(0, dtype=torch.int64))
    assert mask_targets([positives], [target], 14).shape == (0, 14, 14)
    some = BoxList(torch.tensor([[0.0, 0, 9, 9]]), (40, 30))
    some.add_field("matched_idxs", torch.tensor([0]))
    with pytest.raises(DataError, match="MASK_ON"):
        mask_targets([some], [target], 14)
    logits = torch.zeros(0, 14, 14, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(0, 14, 14)).mean()
    assert loss.item() == 0 and loss.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    class Extractor(torch.nn.Module):
        def forward(self, features: Any, boxes: Any) -> torch.Tensor:
            return torch.ones(sum(map(len, boxes)), 6, 2, 2)

    predictor = MaskRCNNC4Predictor(6, 5, hidden=7)
    head = RoIMaskHead(Extractor(), predictor, resolution=4)
    found = BoxList(torch.tensor([[1.0, 1, 9, 9]]), (20, 20))
    found.add_field("labels", torch.tensor([2]))
    assert head.predict([], [found])[0].get_field("mask").shape == (1, 1, 4, 4)
    predictor.mask_fcn_logits.weight.data[2].fill_(value)
    with pytest.raises(UsageError, match="the mask logits are not finite"):
        head.predict([], [found])
    assert len(head.predict([], [found[torch.tensor([False])]])[0]) == 0
