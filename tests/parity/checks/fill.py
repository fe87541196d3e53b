"""Weights and inputs that are functions of their names, so that reference outputs need not ship them.

Every array is sampled from numpy's legacy generator, whose stream is frozen, seeded with the CRC-32 of a
name. Two programs that agree on parameter names and shapes then hold the same weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

ANCHOR_PREFIX = "rpn.anchor_generator.cell_anchors."


def noise(name: str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 array of `shape`."""
    generator = np.random.RandomState(zlib.crc32(name.encode("utf-8")))
    return np.asarray(generator.standard_normal(tuple(shape)), np.float32)


def noise_tensor(name: str, shape: Sequence[int]) -> Tensor:
    """`noise` as a float32 CPU tensor."""
    return torch.from_numpy(noise(name, shape))


def image(name: str, height: int, width: int, block: int = 16) -> np.ndarray:
    """float32 (height, width, 3) in [0, 255]: squares of `block` pixels, each of one colour."""
    colours = noise(name, (math.ceil(height / block), math.ceil(width / block), 3))
    pixels = colours.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    return np.clip(127.0 + 60.0 * pixels, 0, 255).astype(np.float32)


def value(key: str, shape: Sequence[int]) -> np.ndarray:
    """The float32 array that the parameter or buffer `key` (without "module.") holds."""
    x = noise(key, shape)
    if key.endswith("running_var"):
        return 1.0 + 0.1 * np.abs(x)
    if key.endswith(("running_mean", "bias")):
        return 0.1 * x
    if len(shape) <= 1:  # norm weights and scales
        return 0.5 + 0.05 * x
    fan_in = int(np.prod(shape[1:]))
    return x * math.sqrt(2.0 / fan_in)


def fill_tensor(key: str, tensor: Tensor) -> None:
    """Overwrite a floating tensor in place with `value(key, shape)`."""
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(value(key, tuple(tensor.shape)))))


def fill_module(
    module: nn.Module, *, prefix: str = "", gains: Mapping[str, float] | None = None
) -> nn.Module:
    """Overwrite every floating parameter and buffer in place, except anchors; returns the module.

    `prefix` stands before the module's own names. `gains` multiplies the named tensors afterwards.
    """
    for key, tensor in module.state_dict().items():
        name = prefix + key.removeprefix("module.")
        if tensor.is_floating_point() and ANCHOR_PREFIX not in name:
            fill_tensor(name, tensor)
    state = module.state_dict()
    with torch.no_grad():
        for key, factor in (gains or {}).items():
            state[key.removeprefix(prefix)].mul_(factor)
    return module


def network_input(images: Iterable[Mapping[str, object]], mean: Sequence[float], std: float) -> list[Tensor]:
    """float32 (3, h, w) per entry `name, height, width`: (pixel - mean of its channel) / std, channels
    as they come.
    """
    offsets = np.asarray(mean, np.float32)
    tensors = []
    for entry in images:
        pixels = image(str(entry["name"]), int(str(entry["height"])), int(str(entry["width"])))
        tensors.append(torch.from_numpy(((pixels - offsets) / np.float32(std)).transpose(2, 0, 1).copy()))
    return tensors
