"""Checks of schedules, optimizer groups and the names of weights in foreign files."""

from __future__ import annotations

import torch

from checks.checker import Checker
from checks.configs import published_config, unsupported_file
from checks.core.inputs import Components
from maskrcnn_benchmark.checkpoint.families.caffe2 import rename_blobs
from maskrcnn_benchmark.checkpoint.matching import match_names
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.solver.lr import LRSchedule
from maskrcnn_benchmark.solver.optimizer import build_optimizer


def check_lr(ctx: Components, checker: Checker) -> None:
    """Learning rate at chosen iterations of every schedule."""
    for number, case in enumerate(ctx.info["lr"]["schedules"]):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=case["base_lr"])
        schedule = LRSchedule(
            optimizer,
            steps=case["steps"],
            gamma=case["gamma"],
            warmup_iters=case["warmup_iters"],
            warmup_ratio=case["warmup_factor"],
            warmup_method=case["method"],
        )
        got = []
        for iteration, _ in case["lr_at_iteration"]:
            schedule.load_state_dict({"iteration": iteration})
            got.append(optimizer.param_groups[0]["lr"])
        checker.relative(str(number), got, [rate for _, rate in case["lr_at_iteration"]], 1e-9)


def check_optimizer(ctx: Components, checker: Checker) -> None:
    """Groups of the optimizer (name, rate, decay) and momentum for every published configuration listed."""
    for config, expected in ctx.info["optimizer"]["configs"].items():
        missing = unsupported_file(config)
        if missing:
            checker.unsupported(config, missing)
            continue
        with checker.section(config):
            cfg = published_config(config, ctx.folder)
            if cfg is None:
                raise FileNotFoundError(f"{config} is neither in this project nor described in the folder")
            with torch.device("meta"):
                model = build_detection_model(cfg)
            groups = build_optimizer(cfg, model).param_groups
            checker.same("names", [g["name"] for g in groups], [entry[0] for entry in expected["groups"]])
            rates = [[g.get("initial_lr", g["lr"]), g["weight_decay"]] for g in groups]
            checker.values("lr_and_decay", rates, [entry[1:] for entry in expected["groups"]], 1e-9)
            momentum = [g["momentum"] for g in groups]
            checker.values("momentum", momentum, [expected["momentum"]] * len(groups), 1e-9)


def check_c2_rename(ctx: Components, checker: Checker) -> None:
    """Caffe2 blob names to ours, for every published file listed."""
    for name, case in ctx.info["c2_rename"].items():
        checker.same(name, rename_blobs(list(case["map"]), case["depth"]), case["map"])


def check_suffix_match(ctx: Components, checker: Checker) -> None:
    """Loaded name for every model name.

    The reference matches any text suffix, which is a listed defect: matches that begin inside a component
    ("score" in "cls_score") or right behind a block number (the stem's "conv1" in "layer3.7.conv1") are
    expected to be none here.
    """
    for number, case in enumerate(ctx.info["suffix_match"]):
        shapes = {name: (1,) for name in [*case["model"], *case["loaded"]]}
        report = match_names(
            {name: shapes[name] for name in case["model"]}, {name: shapes[name] for name in case["loaded"]}
        )
        got = {name: report.matched.get(name) for name in case["model"]}
        checker.same(str(number), got, {k: _at_boundary(k, v) for k, v in case["result"].items()})


def _at_boundary(name: str, loaded: str | None) -> str | None:
    if loaded is None or name == loaded:
        return loaded
    before = name.removesuffix(f".{loaded}")
    return None if before == name or before.rpartition(".")[2].isdecimal() else loaded
