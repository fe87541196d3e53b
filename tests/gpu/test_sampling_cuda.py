"""Sampling with a generator per image on a GPU."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.samplers import image_generators, subsample_labels

pytestmark = pytest.mark.gpu


def test_a_image_keeps_its_sample() -> None:
    device = torch.device("cuda")
    labels = torch.arange(10_000, device=device) % 2
    together = image_generators([3, 4], "rpn", 2, device)
    torch.manual_seed(1)  # must not matter
    alone = image_generators([4], "rpn", 1, device)
    samples = [torch.cat(subsample_labels(labels, 64, 0.5, source)) for source in (*together, *alone)]
    assert torch.equal(samples[1], samples[2]) and not torch.equal(samples[0], samples[1])
