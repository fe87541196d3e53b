"""Weights of ordinary convolutions for models that have deformable ones in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def deform_names(state: Mapping[str, T], model_names: Iterable[str]) -> dict[str, T]:
    """Call `X.weight` `X.conv.weight` where the model's convolution X is deformable (core spec 3.1).

    A deformable convolution of the model has `X.offset.weight` and `X.conv.weight`. Names of the file may
    be tails of the model's; those that fit already stay.
    """
    names = set(model_names)
    deformable = {
        name.removesuffix(".offset.weight")
        for name in names
        if name.endswith(".offset.weight") and f"{name.removesuffix('.offset.weight')}.conv.weight" in names
    }
    tails = {".".join(parts[i:]) for parts in (n.split(".") for n in deformable) for i in range(len(parts))}
    result = {}
    for name, value in state.items():
        stem = name.removesuffix(".weight")
        becomes = name != stem and "." in stem and stem in tails and f"{stem}.conv.weight" not in state
        result[f"{stem}.conv.weight" if becomes else name] = value
    return result
