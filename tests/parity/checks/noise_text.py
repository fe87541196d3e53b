"""Noise that reference files write as text, such as `sigmoid(2*noise('x/m',(2,3)))-2`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checks.files import side_file
from checks.fill import noise_tensor
from maskrcnn_benchmark.utils.files import read_json

_NAME = re.compile(r"""noise\(["']([^"']+)["']""")
_NOISE = re.compile(r"(?:(?P<gain>[\d.]+)\*)?noise\('(?P<name>[^']+)',\s*\((?P<shape>[^)]*)\)\)")
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "abs": torch.abs,
    "int": Tensor.long,
    "max": lambda tensor: tensor.clamp(min=0),
}
_OPENED = re.compile(rf"((?:(?:{'|'.join(_FUNCTIONS)})\()*)$")
_STEP = re.compile(
    r"\s*(?:\*\s*(?P<gain>[\d.]*\d)|(?P<shift>[+-]\s*[\d.]*\d)|mod\s*(?P<modulus>\d+)|(?P<end>(?:,\s*0)?\)))"
)


def noise_names(content: Any) -> list[str]:
    """Names of all noise(...) phrases in a text, or in the texts of nested lists and dicts."""
    if isinstance(content, str):
        return _NAME.findall(content)
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [name for part in parts for name in noise_names(part)]


def common_prefix(names: list[str]) -> str:
    """What all names begin with, up to its last separator."""
    match = re.match(r".*[/_.-]", os.path.commonprefix(names))
    return match[0] if match else ""


def noise_prefix(path: Path, info: dict[str, Any], system: str) -> str:
    """Prefix of the noise of a reference file that describes its noise elsewhere.

    Taken from its `noise_prefix`, else from the names in the README of its folder, else from this project's
    reference of the same name.
    """
    if "noise_prefix" in info:
        return str(info["noise_prefix"])
    readme = path.with_name("README.md")
    names = noise_names(readme.read_text(encoding="utf-8")) if readme.is_file() else []
    if names:
        return common_prefix(names)
    reference = side_file(path.parent / "none", path.name, system)
    if reference is None:
        raise ValueError(f"{path} has no noise_prefix and {readme} names no noise")
    return str(read_json(reference, what="reference file")["noise_prefix"])


@dataclass(frozen=True)
class NoiseReader:
    """Reads the noise phrases of one reference file; `prefix` begins the names of its noise.

    It is put in front of names that are written without it.
    """

    prefix: str = ""

    @classmethod
    def of(cls, info: dict[str, Any]) -> NoiseReader:
        """The reader for a file: its `noise_prefix`, else what the names in its texts have in common."""
        return cls(info["noise_prefix"] if "noise_prefix" in info else common_prefix(noise_names(info)))

    def __call__(self, text: str, **values: int) -> Tensor:
        """The tensor that the first phrase of `text` describes, of the shape given there.

        `values` replaces `<key>` in the name and `key` in the shape. Functions, factors and summands around
        the noise are applied as far as they follow it without a gap. Raises ValueError without a phrase.
        """
        match = _NOISE.search(text)
        if match is None:
            raise ValueError(f"no noise(...) in {text!r}")
        shape = [_product(part, values) for part in match["shape"].split(",") if part.strip()]
        tensor = noise_tensor(self.name(match["name"], **values), shape)
        if match["gain"]:
            tensor = float(match["gain"]) * tensor
        opened = _OPENED.search(text[: match.start()])
        functions = re.findall(r"\w+", opened[1]) if opened else []
        position = match.end()
        while step := _STEP.match(text, position):
            if step["end"] and not functions:
                break
            tensor = _FUNCTIONS[functions.pop()](tensor) if step["end"] else _applied(tensor, step)
            position = step.end()
        return tensor

    def name(self, name: str, **values: int) -> str:
        """Complete a name as the texts write it: the prefix in front, `values` for `<key>`."""
        for key, value in values.items():
            name = name.replace(f"<{key}>", str(value))
        return name if name.startswith(self.prefix) else self.prefix + name


def _applied(tensor: Tensor, step: re.Match[str]) -> Tensor:
    """`tensor` after one factor, summand or modulus."""
    if step["gain"]:
        return tensor * _number(step["gain"])
    if step["shift"]:
        return tensor + _number(step["shift"].replace(" ", ""))
    return tensor % int(step["modulus"])


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def _product(text: str, values: dict[str, int]) -> int:
    """A shape entry such as `9*5` or `h`."""
    result = 1
    for factor in text.split("*"):
        token = factor.strip()
        result *= values[token] if token in values else int(token)
    return result


def number(text: str, pattern: str) -> float:
    """The first number that follows `pattern` in a description. Raises ValueError if there is none."""
    match = re.search(pattern + r"\s*>?\s*([\d.]*\d)", text)
    if match is None:
        raise ValueError(f"the description {text!r} gives no {pattern!r}")
    return float(match[1])
