"""Are images prepared for the network in the way that its weights were trained with?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.matching import strip_module_prefix
from maskrcnn_benchmark.checkpoint.mmdet_sipmask import EPSILON, is_mmdet_sipmask
from maskrcnn_benchmark.checkpoint.torchvision_resnet import is_torchvision_resnet
from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.doctor.finding import Finding, note, ok, warning

_CAFFE2 = {
    "INPUT.TO_BGR255": True,
    "INPUT.PIXEL_MEAN": [102.9801, 115.9465, 122.7717],
    "INPUT.PIXEL_STD": [1.0, 1.0, 1.0],
}
_TORCHVISION = {
    "INPUT.TO_BGR255": False,
    "INPUT.PIXEL_MEAN": [0.485, 0.456, 0.406],
    "INPUT.PIXEL_STD": [0.229, 0.224, 0.225],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
}
_MMDET = _CAFFE2 | {
    "INPUT.INTERPOLATION": "opencv",
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.FROZEN_BN_EPS": EPSILON,
}
_STORED = ("INPUT.TO_BGR255", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1")
_STRIDES = {
    "R-50.pkl": True,
    "R-101.pkl": True,
    "R-50-GN.pkl": False,
    "R-101-GN.pkl": False,
    "X-101-32x8d.pkl": False,
    "X-101-64x4d.pkl": False,
}


def check_preparation(cfg: CfgNode, path: str, record: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare INPUT and the place of the stride with what a weight file expects.

    Args:
        path: weight file; `.pkl` is Caffe2 (specification "core", sections 3.1 and 5).
        record: content of a torch file; runs of this program store their configuration in it.
    """
    expected, family = _expected(path, record)
    if not expected:
        yield note(f"{path} does not say how its images were prepared", *_STORED[:3])
        return
    wrong = {key: value for key, value in expected.items() if not _equal(get_value(cfg, key), value)}
    if not wrong:
        yield ok(f"images are prepared as for {family}", *expected)
        return
    found = ", ".join(f"{key} is {get_value(cfg, key)}" for key in wrong)
    wanted = " ".join(f"{key} {_word(value)}" for key, value in wrong.items())
    yield warning(
        f"{found}; the weights are {family} and expect another value", *wrong, advice=f"set {wanted}"
    )


def _expected(path: str, record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Key -> value that goes with a file, and the kind of the file; nothing where that is not known."""
    if path.endswith(".pkl"):
        stride = _STRIDES.get(path.rpartition("/")[2])
        extra = {} if stride is None else {"MODEL.RESNETS.STRIDE_IN_1X1": stride}
        return _CAFFE2 | extra, "Caffe2 weights"
    if is_torchvision_resnet(record.get("model", {})):
        return _TORCHVISION, "torchvision weights"
    if is_mmdet_sipmask(strip_module_prefix(record.get("model", {}))):
        return _MMDET, "those of mmdetection"
    text = record.get("config")
    if not isinstance(text, str):
        return {}, ""
    tree = yaml.safe_load(text)
    return {
        key: value for key in _STORED if (value := _find(tree, key)) is not None
    }, "those of an earlier run"


def _find(tree: Any, key: str) -> Any:
    """Value of a full key in nested dicts, None where there is none."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _equal(value: Any, wanted: Any) -> bool:
    """Equal, numbers to one part in a hundred."""
    if isinstance(wanted, list):
        return all(abs(a - b) <= 0.01 * abs(b) for a, b in zip(value, wanted, strict=True))
    return value == wanted


def _word(value: Any) -> str:
    """A value as it is given on the command line."""
    return f'"{value}"' if isinstance(value, list) else str(value)
