"""Checks of RetinaNet: losses and detections on small made-up inputs, and whole models in evaluation mode."""

from __future__ import annotations

import re

from checks.checker import Checker
from checks.core.heads import ground_truth
from checks.core.inputs import Components, detection_arrays
from checks.noise_text import number
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.heads.retinanet.loss import RetinaNetLoss
from maskrcnn_benchmark.modeling.heads.retinanet.postprocess import RetinaNetPostProcessor
from maskrcnn_benchmark.modeling.heads.retinanet.targets import BOX_WEIGHTS, build_anchors
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.rpn.head import flatten_levels


def check_retinanet(ctx: Components, checker: Checker) -> None:
    """Both losses, and detections per image."""
    info, text = ctx.info["rn"], ctx.info["rn"]["settings"]
    maps = [(int(h), int(w)) for h, w in info["maps_hw"]]
    sizes = [(int(h), int(w)) for h, w in info["image_sizes_hw"]]
    logits = [ctx.noise(info["cls"], i=i, h=h, w=w) for i, (h, w) in enumerate(maps)]
    deltas = [ctx.noise(info["reg"], i=i, h=h, w=w) for i, (h, w) in enumerate(maps)]
    inputs = (
        build_anchors(get_cfg().MODEL.RETINANET)(maps),
        flatten_levels(logits, info["classes"]),
        flatten_levels(deltas, 4),
    )
    high, low = (float(v) for v in re.findall(r"[\d.]+", text.split("loss:")[1])[:2])
    coder = BoxCoder(BOX_WEIGHTS)
    loss = RetinaNetLoss(
        Matcher(high, low, allow_low_quality=True),
        coder,
        gamma=number(text, "gamma"),
        alpha=number(text, "alpha"),
        beta=number(text, "beta"),
        regression_weight=number(text, "regress_norm"),
    )
    losses = mean_losses(loss(*inputs, ground_truth(ctx)))
    checker.relative("loss_cls", losses["loss_retina_cls"], ctx.arrays["rn.loss_cls"], 1e-4)
    checker.relative("loss_reg", losses["loss_retina_reg"], ctx.arrays["rn.loss_reg"], 1e-4)
    post_processor = RetinaNetPostProcessor(
        coder,
        score_thresh=number(text, "score"),
        pre_nms_top_n=int(number(text, "pre_nms")),
        nms_thresh=number(text, ", nms"),
        detections_per_img=int(float(text.split(" per image")[0].split()[-1])),
    )
    for i, boxlist in enumerate(post_processor(*inputs, sizes)):
        got = detection_arrays(boxlist)
        stored = [ctx.arrays[f"rn.det.{part}{i}"] for part in ("boxes", "scores", "labels")]
        checker.boxes(f"det{i}", got, stored)
