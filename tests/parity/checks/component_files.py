"""What a component check reads: arrays, descriptions, and noise written as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.fill import noise_tensor

_NOISE = re.compile(r"(?:(?P<gain>[\d.]+)\*)?noise\('(?P<name>[^']+)',\s*\((?P<shape>[^)]*)\)\)")
_SHIFT = re.compile(r"^\s*([+-]\s*[\d.]+)")


@dataclass
class Components:
    """`components.json` and `components.npz` of a folder; `prefix` begins the names of its noise."""

    folder: Path
    info: dict[str, Any]
    arrays: dict[str, np.ndarray]
    prefix: str

    def tensor(self, name: str) -> Tensor:
        """A stored array as a tensor."""
        return torch.from_numpy(self.arrays[name].copy())

    def names(self, section: str) -> list[str]:
        """Names of the arrays of a section, without the section's name and its dot."""
        return [name[len(section) + 1 :] for name in self.arrays if name.startswith(f"{section}.")]

    def noise(self, text: str, **values: int) -> Tensor:
        """The tensor that a phrase like `sigmoid(2*noise('x.o<i>',(2,9*5,h,w)))-2` describes.

        `values` replaces `<key>` in the name and `key` in the shape. Raises ValueError without such
        a phrase.
        """
        found = _NOISE.search(text)
        if found is None:
            raise ValueError(f"no noise(...) in {text!r}")
        name = found["name"]
        for key, value in values.items():
            name = name.replace(f"<{key}>", str(value))
        shape = [_product(part, values) for part in found["shape"].split(",") if part.strip()]
        tensor = noise_tensor(name, shape)
        if found["gain"]:
            tensor = float(found["gain"]) * tensor
        shift = _SHIFT.match(text[found.end() :])
        if shift:
            tensor = tensor + float(shift[1].replace(" ", ""))
        return tensor.sigmoid() if "sigmoid(" in text[: found.start()] else tensor


def _product(text: str, values: dict[str, int]) -> int:
    """A shape entry such as `9*5` or `h`."""
    result = 1
    for factor in text.split("*"):
        token = factor.strip()
        result *= values[token] if token in values else int(token)
    return result


def number(text: str, pattern: str) -> float:
    """The first number that follows `pattern` in a description. Raises ValueError if there is none."""
    found = re.search(pattern + r"\s*>?\s*([\d.]*\d)", text)
    if found is None:
        raise ValueError(f"the description {text!r} gives no {pattern!r}")
    return float(found[1])
