"""Parts of a predictor and its detector that are timed, and their stage names."""

from __future__ import annotations

from types import MappingProxyType

from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.modeling.detectors.augmented import AugmentedDetector
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.utils.timer import StageTimer

TWO_STAGE = MappingProxyType(
    {
        "rpn.head": "proposal head",
        "rpn.test_selector.select": "proposals",
        "roi_heads.box.feature_extractor": "box head",
        "roi_heads.box.predictor": "box head",
        "roi_heads.box.post_processor": "detections",
        "roi_heads.mask.feature_extractor": "mask head",
        "roi_heads.mask.predictor": "mask head",
        "roi_heads.keypoint.predict": "keypoint head",
    }
)
"""Parts of a GeneralizedRCNN after its backbone; an extractor that heads share counts for the first."""

ONE_STAGE = MappingProxyType({"rpn.forward": "head", "rpn.predict": "detections"})
"""Parts of a OneStageDetector after its backbone; a head's `timed_parts` split its predict further."""

PREDICTOR = MappingProxyType(
    {
        "prepare": "transform",
        "upload": "to device",
        "network": "rest of the network",
        "postprocess": "full size",
    }
)
"""Stages of a Predictor: the last resizes boxes and masks to the size of the image."""


def time_predictor(predictor: Predictor, timer: StageTimer) -> None:
    """Time the stages of `predictor` and the parts of its detector until `timer.restore()`."""
    model, parts = predictor.model, {"backbone": "backbone"}
    if isinstance(model, OneStageDetector):
        parts |= ONE_STAGE | {f"rpn.{path}": stage for path, stage in model.rpn.timed_parts.items()}
    else:
        parts |= TWO_STAGE
    if isinstance(model, AugmentedDetector):
        # It joins the boxes of all views before it selects among them.
        parts["roi_heads.box.post_processor.filter_results"] = parts.pop("roi_heads.box.post_processor")
        model = model.detector
    timer.parts(model, parts)
    timer.parts(predictor, PREDICTOR)
