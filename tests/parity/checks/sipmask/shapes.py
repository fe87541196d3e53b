"""Checks of the names and shapes of published FCOS and SipMask files, into our models and back."""

from __future__ import annotations

from pathlib import Path

import torch

from checks.checker import Checker
from checks.files import CONFIGS
from maskrcnn_benchmark.checkpoint.families.mmdetection_sipmask import TABLE, export_sipmask
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.files import read_json

PREFIX, MMDET = "shapes_", "shapes_mmdet_"
BENCHMARK = "benchmark"
"""What lists call SipMask-benchmark."""


def check_shapes(path: Path, checker: Checker) -> None:
    """One `shapes_<config>.json`: the model of that configuration has these names and shapes."""
    shapes = read_json(path, what="list of shapes")
    with checker.section(path.stem), torch.device("meta"):
        model = build_detection_model(load_config(_config_file(path.stem)))
        published = {key: torch.empty(tuple(shape)) for key, shape in shapes.items()}
        if path.stem.startswith(MMDET):
            read = TABLE.to_ours(published)
            back = export_sipmask(model.state_dict())
        else:
            read, back = published, model.state_dict()
        for what, got, expected in (("read", read, model.state_dict()), ("write", back, published)):
            sizes = [sorted((key, list(t.shape)) for key, t in state.items()) for state in (got, expected)]
            checker.same(what, *sizes)


def _config_file(stem: str) -> Path:
    """The project's file of the configuration that the name of a list tells.

    Lists of mmdetection carry the whole name; others model and depth, such as `fcos_imprv_r50`, of any
    schedule.
    """
    if stem.startswith(MMDET):
        return CONFIGS / "sipmask" / f"{stem.removeprefix(MMDET)}.yaml"
    start = _plain(stem.removeprefix(PREFIX).replace(BENCHMARK, "sipmask")) + "fpn"
    files = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if _plain(path.stem).startswith(start)]
    if not files:
        raise FileNotFoundError(f"{stem} names no configuration below {CONFIGS}")
    return files[0]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
