"""Checks of parameter names, shapes, order, types and of what is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from checks.checker import Checker
from checks.configs import published_config, unsupported_file
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.files import read_json


def state_list(model: nn.Module) -> list[list[Any]]:
    """[name, shape, dtype] of every state-dict entry in order."""
    return [
        [name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in model.state_dict().items()
    ]


def check_parameters(model: nn.Module, expected: dict[str, Any], checker: Checker) -> None:
    """State dict, number of trainable parameters and names of the frozen ones."""
    checker.same("state_dict", state_list(model), [list(entry) for entry in expected["state_dict"]])
    parameters = dict(model.named_parameters())
    checker.equal("trainable", sum(p.requires_grad for p in parameters.values()), expected["trainable"])
    frozen = sorted(name for name, p in parameters.items() if not p.requires_grad)
    checker.same("frozen_parameters", frozen, sorted(expected["frozen_parameters"]))


def check_parameter_file(path: Path, checker: Checker) -> None:
    """One `params/<config>.json`: the model of that published configuration, built without memory."""
    expected = read_json(path, what="parameter list")
    config = expected["config"]
    name = f"params.{path.stem}"
    missing = unsupported_file(config)
    if missing:
        checker.unsupported(name, missing)
        return
    with checker.section(name):
        cfg = published_config(config, path.parents[1])
        if cfg is None:
            raise FileNotFoundError(f"{config} is neither in this project nor described in the folder")
        with torch.device("meta"):
            model = build_detection_model(cfg)
        check_parameters(model, expected, checker)
