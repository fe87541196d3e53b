"""Checks of proposal selection, RPN loss, box post-processing and box loss on small made-up inputs."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from checks.checker import Checker
from checks.core.geometry import anchor_generator
from checks.core.inputs import Components, detection_arrays
from checks.noise_text import number
from checks.store import indexed
from maskrcnn_benchmark.modeling.anchors import AnchorGenerator
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import BoxPostProcessor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import ProposalSampler, box_losses
from maskrcnn_benchmark.modeling.rpn.head import flatten_levels
from maskrcnn_benchmark.modeling.rpn.inference import ProposalSelector, add_ground_truth
from maskrcnn_benchmark.modeling.rpn.loss import RPNLoss
from maskrcnn_benchmark.structures.boxlist import BoxList

EVERYTHING = 1_000_000
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def _anchors(ctx: Components) -> AnchorGenerator:
    """From a text like `sizes 32..512 ratios .5,1,2 strides 4..64 straddle 0` (doubling from first to
    last).
    """
    text = ctx.info["rpnp"]["anchors"]
    info: dict[str, list] = {}
    for key in ("sizes", "strides"):
        first, last = (int(v) for v in re.search(key + r" (\d+)\.\.(\d+)", text).groups())  # type: ignore[union-attr]
        info[key] = [first << i for i in range((last // first).bit_length())]
    info["aspect_ratios"] = [float(v) for v in text.split("ratios ")[1].split()[0].split(",")]
    return anchor_generator(info, int(number(text, "straddle")))


def _rpn_inputs(ctx: Components) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Per level anchors (n,4), logits (B,n,1) and deltas (B,n,4)."""
    info = ctx.info["rpnp"]
    maps = [(int(h), int(w)) for h, w in info["maps_hw"]]
    anchors = _anchors(ctx)(maps)
    logits = [ctx.noise(info["objectness"], i=i, h=h, w=w) for i, (h, w) in enumerate(maps)]
    deltas = [ctx.noise(info["deltas"], i=i, h=h, w=w) for i, (h, w) in enumerate(maps)]
    return anchors, flatten_levels(logits, 1), flatten_levels(deltas, 4)


def ground_truth(ctx: Components) -> list[BoxList]:
    """`rpnp.gt<i>` with labels 1, 2, 3, ..."""
    targets = []
    for boxes, (height, width) in zip(
        indexed(ctx.arrays, "rpnp.gt"), ctx.info["rpnp"]["image_sizes_hw"], strict=True
    ):
        target = BoxList(torch.from_numpy(boxes.copy()), (width, height))
        target.add_field("labels", torch.arange(1, len(boxes) + 1))
        targets.append(target)
    return targets


def check_rpn_proposals(ctx: Components, checker: Checker) -> None:
    """Selection in the modes that the names of the arrays list, ground truth appended in training."""
    text = ctx.info["rpnp"]["settings"]
    sizes = [(int(h), int(w)) for h, w in ctx.info["rpnp"]["image_sizes_hw"]]
    inputs = _rpn_inputs(ctx)
    modes = dict.fromkeys(n.split(".")[0] for n in ctx.names("rpnp") if "." in n)
    for mode in modes:
        total = number(text, "fpn_post_nms_top_n")
        if mode == "train_per_image":
            total = number(text.replace("(", ""), r"fpn_post_nms_top_n \d+")
        training = mode.startswith("train")
        selector = ProposalSelector(
            BoxCoder(RPN_WEIGHTS),
            pre_nms_top_n=int(number(text, "pre_nms")),
            post_nms_top_n=int(number(text, ", post_nms")),
            total_top_n=int(total),
            per_batch=mode == "train_per_batch",
            nms_thresh=number(text, ", nms"),
            min_size=number(text, "min_size") if mode.endswith("min16") else 0,
            drop_non_finite=training,
        )
        selected = selector.select(*inputs, sizes)
        if training:
            selected = add_ground_truth(selected, ground_truth(ctx))
        for i, proposals in enumerate(selected):
            got = [proposals.bbox.numpy(), proposals.get_field("objectness").numpy()]
            stored = [ctx.arrays[f"rpnp.{mode}.boxes{i}"], ctx.arrays[f"rpnp.{mode}.objectness{i}"]]
            checker.boxes(f"{mode}{i}", got, stored)


def check_rpn_loss(ctx: Components, checker: Checker) -> None:
    """Labels of all anchors and both losses with a sampler that takes everything."""
    anchors, logits, deltas = _rpn_inputs(ctx)
    every = torch.cat(anchors)
    generator = _anchors(ctx)
    visible = [generator.visibility(every, (int(h), int(w))) for h, w in ctx.info["rpnp"]["image_sizes_hw"]]
    text = ctx.info["rpn_loss"]
    high, low = (float(v) for v in text.split("thresholds ")[1].split(",")[0].split("/"))
    matcher = Matcher(high, low, allow_low_quality=True)
    loss = RPNLoss(matcher, BoxCoder(RPN_WEIGHTS), batch_size_per_image=EVERYTHING, positive_fraction=0.5)
    targets = ground_truth(ctx)
    for i, target in enumerate(targets):
        checker.equal(
            f"labels{i}", loss.label_anchors(every, visible[i], target)[0], ctx.arrays[f"rpn_loss.labels{i}"]
        )
    flat = torch.cat(logits, 1).flatten(), torch.cat(deltas, 1).reshape(-1, 4)
    losses = mean_losses(loss(every, visible, lambda index: (flat[0][index], flat[1][index]), targets))
    checker.relative("objectness", losses["loss_objectness"], ctx.arrays["rpn_loss.objectness"], 1e-4)
    checker.relative("box", losses["loss_rpn_box_reg"], ctx.arrays["rpn_loss.box"], 1e-4)


def check_box_postprocessing(ctx: Components, checker: Checker) -> None:
    """Detections from logits and deltas, box regression per class and class-agnostic."""
    info = ctx.info["bp"]
    proposals = [
        BoxList(torch.from_numpy(boxes.copy()), (width, height))
        for boxes, (height, width) in zip(
            indexed(ctx.arrays, "bp.proposals"), ctx.info["rpnp"]["image_sizes_hw"], strict=True
        )
    ]
    logits, deltas = ctx.noise(info["logits"]), ctx.noise(info["deltas"])
    text = info["settings"]
    for mode in dict.fromkeys(n.split(".")[0] for n in ctx.names("bp") if "." in n):
        agnostic = mode == "agnostic"
        processor = BoxPostProcessor(
            BoxCoder(BOX_WEIGHTS),
            score_thresh=number(text, "score"),
            nms_thresh=number(text, "nms"),
            detections_per_img=int(float(text.split(" per image")[0].split()[-1])),
            class_agnostic=agnostic,
        )
        for i, boxlist in enumerate(processor(logits, deltas[:, :8] if agnostic else deltas, proposals)):
            got = detection_arrays(boxlist)
            stored = [ctx.arrays[f"bp.{mode}.{part}{i}"] for part in ("boxes", "scores", "labels")]
            checker.boxes(f"{mode}{i}", got, stored)


def check_box_loss(ctx: Components, checker: Checker) -> None:
    """Labels, regression targets and losses of all proposals, per class and class-agnostic."""
    info = ctx.info["bl"]
    targets = ground_truth(ctx)
    proposals = []
    for boxes, target in zip(indexed(ctx.arrays, "bp.proposals"), targets, strict=True):
        together = torch.cat([torch.from_numpy(boxes.copy()), target.bbox, target.bbox + 1.5])
        proposals.append(BoxList(together, target.size))
    sampler = ProposalSampler(
        Matcher(0.5, 0.5), BoxCoder(BOX_WEIGHTS), batch_size_per_image=EVERYTHING, positive_fraction=0.5
    )
    sampled = sampler.sample(proposals, targets)
    labels = torch.cat([s.get_field("labels") for s in sampled])
    regression_targets = torch.cat([s.get_field("regression_targets") for s in sampled])
    for mode in dict.fromkeys(n.split(".")[0] for n in ctx.names("bl")):
        for i, part in enumerate(sampled):
            checker.equal(f"{mode}.labels{i}", part.get_field("labels"), ctx.arrays[f"bl.{mode}.labels{i}"])
            stored = ctx.arrays[f"bl.{mode}.targets{i}"]
            checker.values(f"{mode}.targets{i}", part.get_field("regression_targets"), stored)
        agnostic = mode == "agnostic"
        logits, deltas = ctx.noise(info["logits"], n=len(labels)), ctx.noise(info["deltas"], n=len(labels))
        if agnostic:
            deltas = ctx.noise(info["deltas"].replace("28", "8", 1), n=len(labels))
        losses = mean_losses(box_losses(logits, deltas, labels, regression_targets, class_agnostic=agnostic))
        checker.relative(f"{mode}.cls", losses["loss_classifier"], ctx.arrays[f"bl.{mode}.cls"], 1e-4)
        checker.relative(f"{mode}.box", losses["loss_box_reg"], ctx.arrays[f"bl.{mode}.box"], 1e-4)
