"""Choice of group norms."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.conv import conv_norm_relu, fc_norm
from maskrcnn_benchmark.modeling.norm import group_count, group_norm_factory
from maskrcnn_benchmark.utils.errors import ConfigError


def test_group_count() -> None:
    assert group_count(64, 32, -1) == 32
    assert group_count(64, -1, 16) == 4
    with pytest.raises(ConfigError, match="exactly one"):
        group_count(64, 32, 16)
    with pytest.raises(ConfigError, match="does not divide"):
        group_count(60, 32, -1)


def test_names_follow_the_published_layout() -> None:
    norm = group_norm_factory(2, -1, 1e-5)
    assert list(conv_norm_relu(4, 4, 3).state_dict()) == ["weight", "bias"]
    assert list(conv_norm_relu(4, 4, 3, norm=norm, relu=True).state_dict()) == [
        "0.weight",
        "1.weight",
        "1.bias",
    ]
    assert list(fc_norm(4, 4, norm=norm).state_dict()) == ["0.weight", "1.weight", "1.bias"]
    assert fc_norm(4, 4, norm=norm)(torch.zeros(0, 4)).shape == (0, 4)
