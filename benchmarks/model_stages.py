"""Where the time of a detector goes: calls of its parts are clocked while the whole runs."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torchvision.models.detection import MaskRCNN

from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN

STAGES = ("body", "pyramid", "proposal head", "proposals", "box head", "detections", "mask head", "paste")


class Clock:
    """Seconds per stage of the rounds so far; parts are clocked by replacing attributes with wrappers."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rounds: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)

    def _time(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def wrap(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The same callable, whose time counts for `stage`."""

        def clocked(*args: Any, **kwargs: Any) -> Any:
            start = self._time()
            try:
                return call(*args, **kwargs)
            finally:
                self._now[stage] += self._time() - start

        return clocked

    def end_round(self) -> None:
        """Close one run of the whole model."""
        self.rounds.append(dict(self._now))
        self._now.clear()

    def median_ms(self, stage: str) -> float:
        """Median over the rounds, the first (warm-up) left out."""
        return 1000 * statistics.median(r.get(stage, 0.0) for r in self.rounds[1:])


def clock_ours(model: GeneralizedRCNN, clock: Clock) -> None:
    """Replace the calls of the parts of our model by clocked ones."""
    parts = {
        "backbone.body": "body",
        "backbone.fpn": "pyramid",
        "rpn.head": "proposal head",
        "roi_heads.box.feature_extractor": "box head",
        "roi_heads.box.predictor": "box head",
        "roi_heads.mask": "mask head",
    }
    for name, stage in parts.items():
        module = model.get_submodule(name)
        attribute = "detect" if stage == "mask head" else "forward"
        setattr(module, attribute, clock.wrap(getattr(module, attribute), stage))
    model.rpn.selector.select = clock.wrap(model.rpn.selector.select, "proposals")  # type: ignore[method-assign]
    assert model.roi_heads is not None
    box = model.roi_heads.box
    box.post_processor = clock.wrap(box.post_processor, "detections")  # type: ignore[assignment]


def clock_peer(model: MaskRCNN, clock: Clock) -> None:
    """Replace the calls of the parts of torchvision's model by clocked ones."""
    parts = {
        "backbone.body": "body",
        "backbone.fpn": "pyramid",
        "rpn.head": "proposal head",
        "roi_heads.box_roi_pool": "box head",
        "roi_heads.box_head": "box head",
        "roi_heads.box_predictor": "box head",
        "roi_heads.mask_roi_pool": "mask head",
        "roi_heads.mask_head": "mask head",
        "roi_heads.mask_predictor": "mask head",
    }
    for name, stage in parts.items():
        module = model.get_submodule(name)
        module.forward = clock.wrap(module.forward, stage)  # type: ignore[method-assign]
    rpn, heads = model.rpn, model.roi_heads
    rpn.filter_proposals = clock.wrap(rpn.filter_proposals, "proposals")
    heads.postprocess_detections = clock.wrap(heads.postprocess_detections, "detections")
