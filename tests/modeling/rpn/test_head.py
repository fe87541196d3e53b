"""RPN head: the outputs of sampled anchors equal those of the whole maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.rpn.head import SingleConvRPNHead, flatten_levels

SIZES = [(5, 7), (3, 4), (2, 2), (1, 1)]
CHANNELS, ANCHORS, IMAGES = 6, 3, 2
PER_IMAGE = ANCHORS * sum(h * w for h, w in SIZES)


def make(dtype: torch.dtype = torch.float64) -> tuple[SingleConvRPNHead, list[Tensor]]:
    """A head with large random weights, and maps in the layout that models compute in."""
    torch.manual_seed(0)
    head = SingleConvRPNHead(CHANNELS, ANCHORS).to(dtype)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    features = [
        torch.randn(IMAGES, CHANNELS, *size, dtype=dtype)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for size in SIZES
    ]
    return head, features


def from_maps(head: SingleConvRPNHead, features: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (K,) and deltas (K, 4) of `forward_sampled`, indexed in the whole maps."""
    logits, deltas = head(features)
    flat = torch.cat(flatten_levels(logits, 1), 1).reshape(-1)
    return flat[index], torch.cat(flatten_levels(deltas, 4), 1).reshape(-1, 4)[index]


@pytest.mark.parametrize(
    "index",
    [
        torch.arange(IMAGES * PER_IMAGE),
        torch.tensor([5, 0, 200, 5, IMAGES * PER_IMAGE - 1]),
        torch.tensor([PER_IMAGE - 1]),
        torch.zeros(0, dtype=torch.int64),
    ],
    ids=["all", "some, one twice", "coarsest level", "none"],
)
def test_sampled_anchors_equal_the_maps(index: Tensor) -> None:
    """Values, and gradients of all weights and maps, also where they are zero."""
    results = []
    for sampled in (True, False):
        head, features = make()
        if sampled:
            logits, deltas = head.forward_sampled(features, index)
        else:
            logits, deltas = from_maps(head, features, index)
        source = torch.Generator().manual_seed(1)
        loss = (logits * torch.randn(logits.shape, generator=source)).sum()
        loss = loss + (deltas * torch.randn(deltas.shape, generator=source)).sum()
        loss.backward()
        gradients = [value.grad for value in (*head.parameters(), *features)]
        results.append([logits, deltas, *gradients])
    for ours, whole in zip(*results, strict=True):
        # both end in float32
        torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-5)


def test_every_weight_learns_in_each_pass_of_one_autocast_context() -> None:
    """Maps computed without gradients must not leave casts of weights without gradients in the cache."""
    head, features = make(torch.float32)
    index = torch.arange(0, IMAGES * PER_IMAGE, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            head.zero_grad(set_to_none=True)
            logits, deltas = head.forward_sampled(features, index)
            with torch.no_grad():
                whole = head(features)[0]
            (logits.sum() + deltas.sum()).backward()
            assert logits.dtype == torch.float32 and whole[0].dtype == torch.bfloat16
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
