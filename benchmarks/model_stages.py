"""Time of the stages of a detector: calls of its parts are clocked while the whole runs."""

from __future__ import annotations

from torchvision.models.detection import MaskRCNN

from maskrcnn_benchmark.engine.stages import TWO_STAGE
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.utils.timer import Elapsed, StageTimer, median_of

WHOLE = "whole"
FORWARD = ("backbone", "FPN", "proposal head", "proposals")
INFERENCE = (*FORWARD, "box head", "detections", "mask head", "paste")
TRAINING = (*FORWARD, "proposal loss", "box samples", "box head", "mask head", "backward", "optimizer")


def medians_ms(clock: StageTimer, stages: tuple[str, ...]) -> dict[str, Elapsed]:
    """Medians over the rounds, without the first (warm-up); "rest" is the whole without the stages."""
    times = {stage: clock.times(stage)[1:] for stage in stages} | {"rest": clock.times(WHOLE)[1:]}
    return {stage: median_of(values).to_ms() for stage, values in times.items()}


def clock_ours(model: GeneralizedRCNN, clock: StageTimer) -> None:
    """Time the parts of our model."""
    clock.parts(
        model,
        {
            "backbone.body": "backbone",
            "backbone.fpn": "FPN",
            **TWO_STAGE,
            "rpn.train_selector.select": "proposals",
            "rpn.loss": "proposal loss",
            "roi_heads.box.sampler.sample": "box samples",
        },
    )


def clock_peer(model: MaskRCNN, clock: StageTimer) -> None:
    """Time the parts of torchvision's model."""
    clock.parts(
        model,
        {
            "backbone.body": "backbone",
            "backbone.fpn": "FPN",
            "rpn.head": "proposal head",
            "roi_heads.box_roi_pool": "box head",
            "roi_heads.box_head": "box head",
            "roi_heads.box_predictor": "box head",
            "roi_heads.mask_roi_pool": "mask head",
            "roi_heads.mask_head": "mask head",
            "roi_heads.mask_predictor": "mask head",
            "rpn.filter_proposals": "proposals",
            "rpn.assign_targets_to_anchors": "proposal loss",
            "rpn.compute_loss": "proposal loss",
            "roi_heads.select_training_samples": "box samples",
            "roi_heads.postprocess_detections": "detections",
        },
    )
