"""checkpoint.trim: sizes of the parts of a network."""

from __future__ import annotations

import torch

from maskrcnn_benchmark.checkpoint.trim import part_sizes


def test_every_tensor_is_in_the_longest_part_that_fits() -> None:
    state = {
        "module.rpn.head.conv.weight": torch.zeros(2, 3),
        "module.rpn.head.conv.bias": torch.zeros(2),
        "module.rpnx.weight": torch.zeros(5),
        "module.rpn.deep.weight": torch.zeros(7),
    }
    assert part_sizes(state, ("rpn", "rpn.deep", "backbone")) == {
        "rpn": (2, 8),
        "rpn.deep": (1, 7),
        "other": (1, 5),
    }
