"""The model of every training as names, shapes and counts, without memory for its values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.config.models import class_count
from maskrcnn_benchmark.doctor.checkup import Checkup, Job
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, keys_in, ok
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.errors import UsageError

FLOAT = 4
"""Bytes of a weight; weights, gradients and optimizer states are float32 in every precision."""


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model's weights (with buffers), and of those that are trained."""

    weights: int
    trained: int

    @property
    def gradients(self) -> int:
        """Bytes of the gradients."""
        return self.trained

    def optimizer(self, cfg: CfgNode) -> int:
        """Bytes of the optimizer's state."""
        if cfg.SOLVER.OPTIMIZER == "ADAMW":
            return 2 * self.trained
        return self.trained if cfg.SOLVER.MOMENTUM else 0


def meta_model(cfg: CfgNode) -> nn.Module:
    """Build the model of a config on the meta device; ConfigError where it cannot be built."""
    with torch.device("meta"):
        return build_detection_model(cfg)


def job_model(job: Job) -> nn.Module:
    """Build the model of a training on the meta device; NotChecked where it cannot be built."""
    try:
        return meta_model(job.cfg)
    except Exception:  # whatever stops it would stop the run too, and is reported by check_model
        raise NotChecked("the model cannot be built (see model)") from None


def model_size(model: nn.Module) -> ModelSize:
    """Count the bytes of a model, shared tensors once."""
    everything = [*model.parameters(), *model.buffers()]
    return ModelSize(
        sum(t.numel() * t.element_size() for t in everything),
        sum(FLOAT * p.numel() for p in model.parameters() if p.requires_grad),
    )


def check_model(checkup: Checkup) -> Iterator[Finding]:
    """Check that the model of every training can be built, and state its size."""
    problem = checkup.job_problem
    if problem is not None:
        yield error(str(problem), *keys_in(str(problem)), advice="change the keys that are named")
        return
    for job in checkup.jobs:
        try:
            size = model_size(meta_model(job.cfg))
        except UsageError as refusal:
            yield error(str(refusal), *keys_in(str(refusal)), advice="change the keys that are named")
            return
        except Exception as failure:  # an odd value that no check of the configuration knows
            yield error(
                f"the model of {job.name} cannot be built: {type(failure).__name__}: {failure}",
                "MODEL",
                advice="look at the settings of MODEL in the table above",
            )
            return
        backbone = job.cfg.MODEL.BACKBONE
        yield ok(
            f"{job.name}: {backbone.CONV_BODY}, {class_count(job.cfg) or 0} classes with "
            f"background, {size.weights / FLOAT / 1e6:.1f} M parameters, {size.trained / FLOAT / 1e6:.1f} M "
            f"of them trained (backbone frozen up to {backbone.FREEZE_CONV_BODY_AT})",
            "MODEL.BACKBONE.CONV_BODY",
        )
