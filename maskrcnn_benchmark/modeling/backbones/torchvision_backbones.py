"""Backbones made of torchvision's classifiers, under torchvision's own parameter names."""

from __future__ import annotations

from collections import OrderedDict
from itertools import groupby

import torch
from torch import Tensor, nn
from torchvision.models import get_model, list_models
from torchvision.models.resnet import ResNet

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.structures.features import FeatureSpec
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.registry import close_matches

PREFIX = "torchvision/"
STRIDES = (4, 8, 16, 32)
_FAMILIES = ("resnet", "resnext", "wide_resnet", "mobilenet_v2", "mobilenet_v3", "efficientnet", "convnext")
_PROBE = 64
_NOT_FEATURES = ("avgpool", "fc")


class TorchvisionBackbone(nn.Module):
    """The convolutions of a torchvision classifier; returns the last map of each stride 4, 8, 16 and 32.

    Args:
        name: of `torchvision.models`: ResNet, ResNeXt and Wide ResNet, MobileNetV2 and V3, EfficientNet,
            ConvNeXt.
        freeze_at: first stages without gradient: 1 what comes before stride 4, 2 also stride 4, ... 5 all.
        train_norm: whether batch norm layers behind the frozen stages learn and follow the statistics of the
            batches; otherwise all of them stay as they are in the weight file.

    `feature_specs`: channels and stride per returned map, finest first.

    Raises ConfigError for a name that torchvision or this class does not know.
    """

    def __init__(self, name: str, *, freeze_at: int, train_norm: bool) -> None:
        super().__init__()
        network = _classifier(name)
        parts = _feature_parts(network)
        if isinstance(network, ResNet):
            for key, part in parts.items():
                self.add_module(key, part)
        else:
            self.features = nn.Sequential(*parts.values())
        with torch.device("meta"):
            probed = _probe(_feature_parts(_classifier(name)))
        self._stages = [
            [key for key, _, _ in group] for _, group in groupby(probed, key=lambda item: item[1])
        ]
        ends = {stride: channels for _, stride, channels in probed}
        if set(ends) - {1, 2} != set(STRIDES):
            raise ConfigError(f"MODEL.BACKBONE.CONV_BODY {PREFIX}{name}: strides {sorted(ends)}, not 4 to 32")
        self.feature_specs = tuple(FeatureSpec(ends[stride], stride) for stride in STRIDES)
        early = len(self._stages) - len(STRIDES)
        for number, stage in enumerate(self._stages):
            frozen = max(0, number - early + 1) < freeze_at
            for key in stage:
                part = self._part(key)
                if frozen or not train_norm:
                    self._replace(key, _with_frozen_norm(part))
                if frozen:
                    self._part(key).requires_grad_(False)

    def _part(self, key: str) -> nn.Module:
        return self.features[int(key)] if key.isdecimal() else self.get_submodule(key)

    def _replace(self, key: str, part: nn.Module) -> None:
        if key.isdecimal():
            self.features[int(key)] = part
        else:
            self.add_module(key, part)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> list of (B, C_i, H/s_i, W/s_i)."""
        outputs = []
        for stage in self._stages:
            for key in stage:
                x = self._part(key)(x)
            outputs.append(x)
        return outputs[-len(STRIDES) :]


def backbone_names() -> list[str]:
    """Return the names that MODEL.BACKBONE.CONV_BODY takes behind "torchvision/"."""
    return [name for name in list_models(module=None) if name.startswith(_FAMILIES)]


def _classifier(name: str) -> nn.Module:
    """Return the network of torchvision with random weights."""
    known = backbone_names()
    if name not in known:
        near = close_matches(name, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"MODEL.BACKBONE.CONV_BODY {PREFIX}{name}: no such backbone; {hint}")
    return get_model(name, weights=None)


def _feature_parts(network: nn.Module) -> OrderedDict[str, nn.Module]:
    """Return the modules that compute features, in order: of a ResNet by name, of others by index."""
    if isinstance(network, ResNet):
        return OrderedDict((key, part) for key, part in network.named_children() if key not in _NOT_FEATURES)
    return OrderedDict(network.get_submodule("features").named_children())


def _probe(parts: OrderedDict[str, nn.Module]) -> list[tuple[str, int, int]]:
    """Return (name, stride of the output, channels) of every part, computed on the meta device."""
    x = torch.empty(1, 3, _PROBE, _PROBE, device="meta")
    result = []
    for key, part in parts.items():
        x = part.eval()(x)
        result.append((key, _PROBE // x.shape[-1], x.shape[1]))
    return result


def _with_frozen_norm(module: nn.Module) -> nn.Module:
    """Replace every batch norm in a module, or the module itself, by frozen batch norm."""
    if isinstance(module, nn.BatchNorm2d):
        fixed = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        fixed.load_state_dict(module.state_dict())
        return fixed
    for name, child in module.named_children():
        setattr(module, name, _with_frozen_norm(child))
    return module
