"""Checks of keypoint geometry, targets and decoding on small made-up inputs."""

from __future__ import annotations

from checks.checker import Checker
from checks.core.inputs import Components
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import heatmaps_to_keypoints
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import keypoints_to_heatmap
from maskrcnn_benchmark.structures.boxlist import FLIP_LEFT_RIGHT
from maskrcnn_benchmark.structures.keypoints import Keypoints


def check_keypoints(ctx: Components, checker: Checker) -> None:
    """Flip, resize, heat map indices of every size listed, and points decoded from heat maps."""
    info = ctx.info["kp"]
    width, height = info["image_size_wh"]
    points, boxes = ctx.tensor("kp.keypoints"), ctx.tensor("kp.boxes")
    keypoints = Keypoints(points, (width, height))
    for name in ctx.names("kp"):
        what, _, size = name.partition(".")
        if what == "flip":
            checker.values(name, keypoints.transpose(FLIP_LEFT_RIGHT).points, ctx.arrays["kp.flip"])
        elif what.startswith("resize_"):
            sides = [int(side) for side in what.removeprefix("resize_").split("x")]
            resized = keypoints.resize((sides[0], sides[1]))
            checker.values(name, resized.points, ctx.arrays[f"kp.{name}"])
        elif what == "heat_index":
            index, valid = keypoints_to_heatmap(points, boxes, int(size))
            checker.equal(name, index, ctx.arrays[f"kp.{name}"])
            checker.equal(f"valid.{size}", valid.long(), ctx.arrays[f"kp.valid.{size}"])
    decoded, logits = heatmaps_to_keypoints(ctx.noise(info["maps"]), boxes)
    checker.values("decoded", decoded, ctx.arrays["kp.decoded"])
    checker.values("decoded_logit", logits, ctx.arrays["kp.decoded_logit"])
