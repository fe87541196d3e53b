"""Where the time of a detector goes: calls of its parts are clocked while the whole runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from timing import Elapsed, median_of, now
from torch import nn
from torchvision.models.detection import MaskRCNN

from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN

WHOLE = "whole"
FORWARD = ("body", "pyramid", "proposal head", "proposals")
INFERENCE = (*FORWARD, "box head", "detections", "mask head", "paste")
TRAINING = (*FORWARD, "proposal loss", "box samples", "box head", "mask head", "backward", "optimizer")


class Clock:
    """Seconds per stage of the rounds so far; parts are clocked by replacing attributes with wrappers."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rounds: list[dict[str, Elapsed]] = []
        self._now: dict[str, Elapsed] = defaultdict(lambda: Elapsed(0.0, 0.0))

    def wrap(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The same callable, whose time counts for `stage`."""

        @wraps(call)  # takes over the attributes of callable objects as well
        def clocked(*args: Any, **kwargs: Any) -> Any:
            start = now(self.device)
            try:
                return call(*args, **kwargs)
            finally:
                end, sofar = now(self.device), self._now[stage]
                self._now[stage] = Elapsed(
                    sofar.wall + end.wall - start.wall, sofar.cpu + end.cpu - start.cpu
                )

        return clocked

    def replace(self, owner: Any, attribute: str, stage: str) -> None:
        """Clock one callable attribute of an object."""
        setattr(owner, attribute, self.wrap(getattr(owner, attribute), stage))

    def modules(self, model: nn.Module, parts: dict[str, str]) -> None:
        """Clock the forward pass of submodules: name -> stage."""
        for name, stage in parts.items():
            self.replace(model.get_submodule(name), "forward", stage)

    def end_round(self) -> None:
        """Close one run of the whole model."""
        self.rounds.append(dict(self._now))
        self._now.clear()

    def medians_ms(self, stages: tuple[str, ...]) -> dict[str, Elapsed]:
        """Medians over the rounds, the first (warm-up) left out; "rest" is the whole without the stages."""
        zero = Elapsed(0.0, 0.0)
        rounds = self.rounds[1:]
        times = {stage: [r.get(stage, zero) for r in rounds] for stage in stages}
        times["rest"] = [
            Elapsed(
                r[WHOLE].wall - sum(times[stage][i].wall for stage in stages),
                r[WHOLE].cpu - sum(times[stage][i].cpu for stage in stages),
            )
            for i, r in enumerate(rounds)
        ]
        return {stage: median_of(values).to_ms() for stage, values in times.items()}


def clock_ours(model: GeneralizedRCNN, clock: Clock) -> None:
    """Clock the parts of our model."""
    assert model.roi_heads is not None
    box = model.roi_heads.box
    clock.modules(
        model,
        {
            "backbone.body": "body",
            "backbone.fpn": "pyramid",
            "rpn.head": "proposal head",
            "roi_heads.box.feature_extractor": "box head",
            "roi_heads.box.predictor": "box head",
            "roi_heads.mask.feature_extractor": "mask head",
            "roi_heads.mask.predictor": "mask head",
        },
    )
    clock.replace(model.rpn.selector, "select", "proposals")
    clock.replace(model.rpn, "loss", "proposal loss")
    clock.replace(box.targets, "sample", "box samples")
    clock.replace(box, "post_processor", "detections")


def clock_peer(model: MaskRCNN, clock: Clock) -> None:
    """Clock the parts of torchvision's model."""
    clock.modules(
        model,
        {
            "backbone.body": "body",
            "backbone.fpn": "pyramid",
            "rpn.head": "proposal head",
            "roi_heads.box_roi_pool": "box head",
            "roi_heads.box_head": "box head",
            "roi_heads.box_predictor": "box head",
            "roi_heads.mask_roi_pool": "mask head",
            "roi_heads.mask_head": "mask head",
            "roi_heads.mask_predictor": "mask head",
        },
    )
    clock.replace(model.rpn, "filter_proposals", "proposals")
    clock.replace(model.rpn, "assign_targets_to_anchors", "proposal loss")
    clock.replace(model.rpn, "compute_loss", "proposal loss")
    clock.replace(model.roi_heads, "select_training_samples", "box samples")
    clock.replace(model.roi_heads, "postprocess_detections", "detections")
