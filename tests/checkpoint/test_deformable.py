"""Weights of ordinary convolutions in deformable ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.io import save_atomic
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.checkpoint.matching import deform_names
from maskrcnn_benchmark.layers import DFConv2d

MODEL = [
    *("body.layer1.0.conv2.weight", "body.layer2.0.conv2.offset.weight", "body.layer2.0.conv2.offset.bias"),
    *("body.layer2.0.conv2.conv.weight", "head.offset.weight", "rpn.conv.weight"),
]


def test_only_deformable_convolutions_are_renamed() -> None:
    file = [
        "layer1.0.conv2.weight",
        "layer2.0.conv2.weight",
        "conv2.weight",
        "rpn.conv.weight",
        "head.weight",
    ]
    names = list(deform_names(dict.fromkeys(file), MODEL))
    assert names == [file[0], "layer2.0.conv2.conv.weight", *file[2:]]
    assert list(deform_names(dict.fromkeys(MODEL), MODEL)) == MODEL
    both = ["layer2.0.conv2.weight", "layer2.0.conv2.conv.weight"]
    assert list(deform_names(dict.fromkeys(both), MODEL)) == both


def test_a_file_without_offsets_starts_a_deformable_model(tmp_path: Path) -> None:
    def backbone(conv: nn.Module) -> nn.ModuleDict:
        return nn.ModuleDict({"layer2": nn.Sequential(nn.ModuleDict({"conv2": conv}))})

    plain = backbone(nn.Conv2d(2, 3, 3, bias=False))
    save_atomic(plain.state_dict(), tmp_path / "plain.pth")
    model = nn.ModuleDict({"body": backbone(DFConv2d(2, 3))})
    report = load_weights(model, tmp_path / "plain.pth", conv_body="R-50-FPN")
    weight = model["body"]["layer2"][0]["conv2"].conv.weight
    assert torch.equal(weight, plain["layer2"][0]["conv2"].weight)
    assert not report.unexpected and len(report.missing) == 2
