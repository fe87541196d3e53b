"""Backbones of torchvision: maps, names, freezing, statistics, weight files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbones.torchvision_backbones import TorchvisionBackbone, backbone_names
from maskrcnn_benchmark.modeling.detectors.build import build_features
from maskrcnn_benchmark.utils.errors import ConfigError

Cfg = Callable[..., Any]
SMALL = ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"]


@pytest.mark.parametrize("name", SMALL)
def test_maps_of_every_family(small_cfg: Cfg, name: str) -> None:
    backbone = build_features(small_cfg("MODEL.BACKBONE.CONV_BODY", f"torchvision/{name}"))
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 16, -(-64 // s), -(-96 // s)) for s in (4, 8, 16, 32, 64)]
    sum(m.sum() for m in maps).backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


def test_names() -> None:
    assert {"resnet50", "resnext101_32x8d", "wide_resnet50_2", *SMALL} <= set(backbone_names())
    assert not [name for name in backbone_names() if "fcn" in name or "quantized" in name]
    with pytest.raises(ConfigError, match=r"torchvision/resnet5: no such backbone; did you mean .*resnet50"):
        TorchvisionBackbone("resnet5", freeze_at=0, train_norm=False)
    with pytest.raises(ConfigError, match="no such backbone"):
        TorchvisionBackbone("vgg16", freeze_at=0, train_norm=False)


def randomised(name: str) -> nn.Module:
    """A classifier whose batch norm statistics and weights are not trivial."""
    torch.manual_seed(0)
    network = get_model(name, weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small"])
@pytest.mark.parametrize("norm", ["frozen", "train"])
def test_a_file_of_torchvision_gives_its_features(
    small_cfg: Cfg, tmp_path: Path, name: str, norm: str
) -> None:
    network = randomised(name)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    conv_body = f"torchvision/{name}"
    backbone = build_features(small_cfg("MODEL.BACKBONE.CONV_BODY", conv_body, "MODEL.BACKBONE.NORM", norm))
    report = load_weights(backbone, tmp_path / "w.pth", conv_body=conv_body)
    assert all(".num_batches_tracked" in n or n.startswith("fpn") for n in report.missing), report.missing
    assert all(n.startswith(("fc", "classifier")) or "tracked" in n for n in report.unexpected)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = backbone.eval().body(images)[-1]
        if name == "resnet18":
            kept = nn.Sequential(*(m for key, m in network.named_children() if key not in ("avgpool", "fc")))
        else:
            kept = network.get_submodule("features")
        torch.testing.assert_close(found, kept(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("freeze_at", "stages"), [(0, 0), (1, 1), (2, 2), (3, 3), (5, 5)])
def test_frozen_stages_neither_learn_nor_follow_statistics(freeze_at: int, stages: int) -> None:
    backbone = TorchvisionBackbone("resnet18", freeze_at=freeze_at, train_norm=True).train()
    groups = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    for number, names in enumerate(groups):
        for name in names:
            part = backbone.get_submodule(name)
            frozen = number < stages
            assert all(p.requires_grad != frozen for p in part.parameters())
            kinds = {type(m) for m in part.modules() if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d))}
            assert kinds <= {FrozenBatchNorm2d if frozen else nn.BatchNorm2d}
    before = backbone.layer4[0].bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert torch.equal(before, backbone.layer4[0].bn1.running_mean) == (stages == 5)


def test_without_fpn(small_cfg: Cfg) -> None:
    with pytest.raises(ConfigError, match=r"torchvision/resnet18 needs MODEL\.RPN\.USE_FPN True"):
        from maskrcnn_benchmark.config.load import load_config

        load_config(None, ["MODEL.BACKBONE.CONV_BODY", "torchvision/resnet18"])
