"""Checks of the names and shapes of published FCOS and SipMask files, into our models and back."""

from __future__ import annotations

from pathlib import Path

import torch

from checks.checker import Checker
from maskrcnn_benchmark.checkpoint.mmdet_sipmask import export_mmdet_sipmask, import_mmdet_sipmask
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.files import read_json

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
FILES = {
    "shapes_benchmark_R_50": "sipmask/sipmask_R_50_FPN_1x",
    "shapes_benchmark_R_101": "sipmask/sipmask_R_101_FPN_ms_3x",
    "shapes_fcos_r50": "fcos/fcos_R_50_FPN_1x",
    "shapes_fcos_imprv_r50": "fcos/fcos_imprv_R_50_FPN_1x",
}
"""Configurations of the lists whose names do not tell it."""
MMDET = "shapes_mmdet_"


def check_shapes(path: Path, checker: Checker) -> None:
    """One `shapes_<config>.json`: the model of that configuration has these names and shapes."""
    shapes = read_json(path, what="list of shapes")
    name = FILES.get(path.stem, f"sipmask/{path.stem.removeprefix(MMDET)}")
    with checker.section(path.stem), torch.device("meta"):
        model = build_detection_model(load_config(CONFIGS / f"{name}.yaml"))
        published = {key: torch.empty(tuple(shape)) for key, shape in shapes.items()}
        if path.stem.startswith(MMDET):
            read = import_mmdet_sipmask(published)
            back = export_mmdet_sipmask(model.state_dict())
        else:
            read, back = published, model.state_dict()
        for what, got, wanted in (("read", read, model.state_dict()), ("write", back, published)):
            sizes = [sorted((key, list(t.shape)) for key, t in state.items()) for state in (got, wanted)]
            checker.same(what, *sizes)
