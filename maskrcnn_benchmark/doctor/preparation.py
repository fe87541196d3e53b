"""Check that images are prepared for the network as its weights expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.families.table import family_of
from maskrcnn_benchmark.checkpoint.matching import strip_module_prefix
from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.config.yaml_text import parse_yaml
from maskrcnn_benchmark.doctor.finding import Finding, note, ok, warning

_STORED = ("INPUT.TO_BGR255", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1")


def check_preparation(cfg: CfgNode, path: str, record: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare INPUT and STRIDE_IN_1X1 with what a weight file expects.

    Args:
        path: weight file; `.pkl` is Caffe2.
        record: content of a torch file; runs of this program store their config in it.
    """
    expected, family = _expected(path, record)
    if not expected:
        yield note(f"{path} does not say how its images were prepared", *_STORED[:3])
        return
    wrong = {key: value for key, value in expected.items() if not _equal(get_value(cfg, key), value)}
    if not wrong:
        yield ok(f"images are prepared as for {family}", *expected)
        return
    values = ", ".join(f"{key} is {get_value(cfg, key)}" for key in wrong)
    settings = " ".join(f"{key} {_word(value)}" for key, value in wrong.items())
    yield warning(
        f"{values}; the weights are {family} and expect another value", *wrong, advice=f"set {settings}"
    )


def _expected(path: str, record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return key -> value that a file expects, and whose weights they are; empty where not known."""
    family = family_of(strip_module_prefix(record.get("model", {})), path)
    expected = family.expects(path)
    if expected:
        return expected, f"{family.name} weights"
    text = record.get("config")
    if not isinstance(text, str):
        return {}, ""
    tree = parse_yaml(text, f"the configuration stored in {path}")
    stored = {key: value for key in _STORED if (value := _value_at(tree, key)) is not None}
    return stored, "weights of an earlier run"


def _value_at(tree: Any, key: str) -> Any:
    """Return the value of a full key in nested dicts, None where there is none."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _equal(value: Any, expected: Any) -> bool:
    """Return whether values are equal, numbers to one part in a hundred."""
    if isinstance(expected, list):
        return all(abs(a - b) <= 0.01 * abs(b) for a, b in zip(value, expected, strict=True))
    return value == expected


def _word(value: Any) -> str:
    """Format a value as it is given on the command line."""
    return f'"{value}"' if isinstance(value, list) else str(value)
