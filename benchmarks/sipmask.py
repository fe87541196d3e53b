"""SipMask's inference by stage, one image at a time, beside torchvision's RetinaNet, and its mask memory.

Weights are random; the threshold is set so that CANDIDATES pairs of location and class enter NMS, as many as
a trained model has on a crowded image, and 100 detections remain. `share` is the fraction of the whole time.
The last row shows the peak memory of assembling the masks of 100 detections.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import median_times, peak_mb
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.modeling.heads.sipmask.head import SipMask
from maskrcnn_benchmark.modeling.heads.sipmask.postprocess import assemble_full_masks
from maskrcnn_benchmark.structures.geometry import AffineMap, ImageGeometry
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.utils.timer import StageTimer, median_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "sipmask"
# Configuration, size of the network input, size of the image file.
CASES = {
    "real-time R-50": ("sipmask_r50_caffe_fpn_ssd_gn_10x", (544, 544), (480, 640)),
    "++ R-101": ("sipmask_plusplus_r101_caffe_fpn_ssd_gn_10x", (544, 544), (480, 640)),
    "800 R-50": ("sipmask_R_50_FPN_1x", (800, 1216), (426, 640)),
}
PARTS = {
    "backbone": "backbone",
    "rpn.forward": "head",
    "rpn.predict": "candidates, NMS",
    "rpn._with_masks": "masks",
}
CANDIDATES, DETECTIONS, ROUNDS = 1000, 100, 7
MASK_FRACTION, MASK_MEMORY_MB = 0.15, 150.0
LARGE, LARGE_INPUT = (800, 1333), (800, 1344)


def _model(name: str, device: torch.device) -> OneStageDetector:
    """Random weights whose boxes are some strides wide."""
    torch.manual_seed(0)
    cfg = load_config(str(CONFIGS / f"{name}.yaml"), ["MODEL.WEIGHT", ""])
    model = build_detection_model(cfg).eval().to(device)
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if key.endswith("running_var"):
                buffer.fill_(2.0)
        model.get_submodule("rpn.head").bbox_pred.bias.fill_(3.0)
    return model


@torch.no_grad()
def _set_threshold(model: OneStageDetector, images: ImageList) -> None:
    """Set the score threshold so that CANDIDATES pairs of location and class pass."""
    head = model.rpn
    assert isinstance(head, SipMask)
    outputs = model.rpn(model.backbone(images.tensors))
    processor = head.post_processor
    processor.score_thresh, processor.threshold_on_score = 0.0, True
    (candidates,) = processor.candidates(outputs.boxes, head.points(outputs))
    products = candidates.scores.square() if processor.sqrt_scores else candidates.scores
    processor.score_thresh = float(products.topk(min(CANDIDATES, len(products))).values[-1])


def _row(case: str, size: tuple[int, int], **values: Any) -> dict[str, Any]:
    keys = ("ours_ms", "share", "peer_ms", "ratio", "ours_mb", "target", "work")
    return {"case": case, "input": f"{size[0]}x{size[1]}"} | {key: values.get(key) for key in keys}


def _stage_rows(name: str, device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """A row per stage and one for the whole."""
    file, size, original = CASES[name]
    images = ImageList(120 * torch.rand(1, 3, *size, device=device) - 60, [size], [original])
    model = _model(file, device)
    _set_threshold(model, images)
    clock = StageTimer(device)
    clock.parts(model, PARTS)
    detections = 0
    for _ in range(1 + (1 if quick else ROUNDS)):
        with torch.no_grad(), clock.stage("rest"):
            detections = len(model(images)[0])
        clock.end_round()
    clock.restore()
    times = {stage: median_of(clock.times(stage)[1:]).to_ms().wall for stage in (*PARTS.values(), "rest")}
    whole = sum(times.values())
    rows = [
        _row(
            f"{name}: {stage}",
            size,
            ours_ms=round(ms, 1),
            share=round(ms / whole, 3),
            target=MASK_FRACTION if stage == "masks" else None,
        )
        for stage, ms in times.items()
    ]
    peer = retinanet_resnet50_fpn(weights=None, weights_backbone=None, min_size=800, max_size=1333)
    calls: list[Callable[[], object]] = [partial(model, images), _peer_call(peer.eval().to(device), device)]
    with torch.no_grad():
        both = median_times(calls, device, 0.0, 1 if quick else 3)
    whole_row = _row(
        name,
        size,
        ours_ms=round(both[0].wall, 1),
        share=1.0,
        peer_ms=round(both[1].wall, 1),
        ratio=round(both[0].wall / both[1].wall, 3),
        work=f"{detections} detections; peer: RetinaNet R-50 at 800 x 1216",
    )
    return [whole_row, *rows]


def _peer_call(model: torch.nn.Module, device: torch.device) -> Callable[[], object]:
    """torchvision's RetinaNet on an image of 800 x 1216."""
    image = torch.rand(3, 800, 1216, device=device)
    return partial(model, [image])


def _memory_row(device: torch.device) -> dict[str, Any]:
    """Masks of 100 boxes of an image of 800 x 1333."""
    g = torch.Generator().manual_seed(0)
    height, width = LARGE
    corner = torch.rand(DETECTIONS, 2, generator=g) * torch.tensor([width * 0.6, height * 0.6])
    boxes = torch.cat((corner, corner + 40 + torch.rand(DETECTIONS, 2, generator=g) * 400), dim=1)
    inputs: list[Tensor] = [
        torch.randn(DETECTIONS, 128, generator=g).to(device),
        torch.rand(32, LARGE_INPUT[0] // 2, LARGE_INPUT[1] // 2, generator=g).to(device),
        boxes.to(device),
    ]
    geometry = ImageGeometry(LARGE, LARGE_INPUT, LARGE, AffineMap())
    call = partial(assemble_full_masks, *inputs, geometry, threshold=0.4, resize="legacy")
    (ms,) = median_times([call], device, 0.0, 3)
    used = peak_mb(call, device)
    return _row(
        f"masks of {DETECTIONS} detections",
        LARGE,
        ours_ms=round(ms.wall, 1),
        ours_mb=None if used is None else round(used, 1),
        target=MASK_MEMORY_MB,
        work=f"the masks alone take {DETECTIONS * height * width / 2**20:.0f} MB",
    )


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """All rows; `quick` takes the real-time model alone and one round."""
    rows = []
    for name in list(CASES)[: 1 if quick else None]:
        rows += _stage_rows(name, device, quick)
    return [*rows, _memory_row(device)]
