"""Check for combinations of keys that load and run, and yet spoil results."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.config.models import has_roi_heads, model_family
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.doctor.checkup import TEST, TRAIN, Checkup, size_keys
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, note, ok, warning

LVIS_DETECTIONS, MANY_CLASSES = 300, 300
"""Detections per image that the LVIS protocol counts; from this many classes on fewer lose AP."""

_PROPOSALS = 500  # training proposals per image below which published results are not reached
_SMALL = 0.3  # fraction of objects below half the smallest anchor that is worth a warning


def check_pitfalls(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on combinations of keys."""
    yield from _pixels(checkup)
    yield from _proposals(checkup)
    yield from _precision(checkup)
    yield from _tests(checkup)
    yield from _long_tail(checkup)
    yield from _objects(checkup)
    yield ok(f"all sampling starts from SEED {checkup.cfg.SEED}: the same command gives the same run", "SEED")


def _pixels(checkup: Checkup) -> Iterator[Finding]:
    """Check that mean and std are in the range of the pixel values."""
    node = checkup.cfg.INPUT
    keys = ("INPUT.TO_BGR255", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD")
    if node.TO_BGR255 and (max(node.PIXEL_MEAN) <= 1 or max(node.PIXEL_STD) < 1):
        yield warning(
            f"pixels are BGR in 0..255, but mean {node.PIXEL_MEAN} and std {node.PIXEL_STD} are in "
            "the range 0..1",
            *keys,
            advice="set INPUT.TO_BGR255 False (RGB in 0..1), or give the values of the range 0..255 in "
            "BGR order",
        )
    elif not node.TO_BGR255 and (max(node.PIXEL_MEAN) > 1 or min(node.PIXEL_STD) >= 1):
        yield warning(
            f"pixels are RGB in 0..1, but mean {node.PIXEL_MEAN} and std {node.PIXEL_STD} are in the "
            "range 0..255",
            *keys,
            advice="set INPUT.TO_BGR255 True, or give the values of the range 0..1 in RGB order",
        )
    elif not checkup.cfg.MODEL.WEIGHT and max(node.PIXEL_STD) <= 1 and node.TO_BGR255:
        yield warning(
            "training starts from random weights with pixels that reach from -123 to 153",
            "INPUT.PIXEL_STD",
            advice='set INPUT.PIXEL_STD "[57.0, 57.0, 57.0]"',
        )


def _proposals(checkup: Checkup) -> Iterator[Finding]:
    """Check the proposals of an FPN, which are counted over the whole batch of a process."""
    rpn = checkup.cfg.MODEL.RPN
    if not (rpn.USE_FPN and rpn.FPN_POST_NMS_PER_BATCH) or not has_roi_heads(checkup.cfg):
        return
    for job in checkup.jobs[:2]:
        images = -(-job.cfg.SOLVER.IMS_PER_BATCH // checkup.processes)
        each = job.cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN // images
        if each < _PROPOSALS:
            yield warning(
                f"{job.name}: {images} images of a process have together "
                f"{job.cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN} proposals, {each} each; published runs have "
                "1000 each (2 images and 2000, or 1 and 1000)",
                "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN",
                "MODEL.RPN.FPN_POST_NMS_PER_BATCH",
                advice="set MODEL.RPN.FPN_POST_NMS_PER_BATCH False MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN "
                f"1000, or start {-(-checkup.cfg.SOLVER.IMS_PER_BATCH // 2)} processes",
            )
            return


def _precision(checkup: Checkup) -> Iterator[Finding]:
    cfg = checkup.cfg
    on_cpu = cfg.MODEL.DEVICE == "cpu" or not torch.cuda.is_available()
    if cfg.DTYPE == "float16" and on_cpu:
        yield warning("float16 on a CPU is slow", "DTYPE", advice="set DTYPE float32 or bfloat16")
    if cfg.DTYPE == "float16" and not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        yield note("float16 without SOLVER.CLIP_GRADIENTS: single updates may be skipped", "DTYPE")


def _tests(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on settings of the detections that are evaluated."""
    cfg, family = checkup.cfg, model_family(checkup.cfg)
    for pitfall in family.pitfalls(cfg):
        yield warning(pitfall.text, *pitfall.keys, advice=pitfall.advice)
    if cfg.TEST.BBOX_AUG.ENABLED and not has_roi_heads(cfg):
        augment = "TEST.BBOX_AUG.ENABLED"
        yield error("test-time augmentation needs a box head", augment, advice=f"set {augment} False")
    try:
        lvis = [annotations for _, annotations in checkup.annotations(TEST) if annotations.kind == "lvis"]
    except NotChecked:
        return
    if not lvis:
        return
    classes, key = len(lvis[0].categories), family.detections_key
    limit = get_value(cfg, key)
    if 0 < limit < LVIS_DETECTIONS and classes >= MANY_CLASSES:
        yield warning(
            f"{limit} detections per image for {classes} LVIS categories; the protocol counts "
            f"{LVIS_DETECTIONS}",
            key,
            advice=f"set {key} {LVIS_DETECTIONS}",
        )
    threshold = cfg.MODEL.ROI_HEADS.SCORE_THRESH
    if family.roi_heads and threshold > 0.01 and classes >= MANY_CLASSES and not checkup.lst:
        yield warning(
            f"detections below a score of {threshold:g} are dropped; with {classes} categories "
            "the rare ones score low and lose AP",
            "MODEL.ROI_HEADS.SCORE_THRESH",
            advice="set MODEL.ROI_HEADS.SCORE_THRESH 0.0",
        )


def _long_tail(checkup: Checkup) -> Iterator[Finding]:
    """Check choices of an LST run that differ from the paper's in a way that matters."""
    lst = checkup.cfg.LST
    if not checkup.lst:
        return
    if lst.SCORE_THRESH_STEP > 0:
        yield note(
            f"the steps drop detections below a score of {lst.SCORE_THRESH_STEP:g}; the release keeps all",
            "LST.SCORE_THRESH_STEP",
        )
    if lst.FREEZE_STEP < 5:
        yield note(
            f"parts of the backbone train in the steps (LST.FREEZE_STEP {lst.FREEZE_STEP}); the paper "
            "freezes all of it (5), which keeps old classes",
            "LST.FREEZE_STEP",
        )
    off = [key for key in ("REPLAY", "DISTILL") if not lst[key].ENABLED]
    if off:
        yield warning(
            f"LST.{' and LST.'.join(off)} switched off: old classes will be forgotten",
            *(f"LST.{key}.ENABLED" for key in off),
            advice="leave them on, unless forgetting is what the run shows",
        )
    if lst.VAL_IMAGES == "positive":
        yield note(
            "phases are tested on different images: their AP cannot be compared (LST.VAL_IMAGES all does)",
            "LST.VAL_IMAGES",
        )
    if lst.PHASES and 0 not in lst.PHASES:
        yield note(f"only the phases {list(lst.PHASES)} run; the one before must be there", "LST.PHASES")


def _objects(checkup: Checkup) -> Iterator[Finding]:
    """Compare object sizes, as the network sees them, with the anchors."""
    cfg = checkup.cfg
    key = model_family(cfg).targets.anchor_sizes
    if not key:
        return  # no anchors
    sizes = get_value(cfg, key)
    smallest, largest, keys = min(sizes), max(sizes), (key, size_keys(cfg)[0])
    try:
        files = [annotations for _, annotations in checkup.annotations(TRAIN)]
    except NotChecked:
        return
    rule = SizeRule.from_cfg(cfg, train=True)
    sides = sorted(side for file in files for side in _sides(file, rule))
    if not sides:
        return
    below = sum(side < smallest / 2 for side in sides) / len(sides)
    above = sum(side > 2 * largest for side in sides) / len(sides)
    low, middle, high = (sides[int(q * (len(sides) - 1))] for q in (0.05, 0.5, 0.95))
    text = (
        f"at training size objects measure {low:.0f} to {high:.0f} pixels (5 % to 95 %, median "
        f"{middle:.0f}), anchors {smallest} to {largest}"
    )
    if max(below, above) > _SMALL:
        wrong = f"{100 * below:.0f} % are below half the smallest" if below > above else ""
        wrong = wrong or f"{100 * above:.0f} % are above twice the largest"
        yield warning(
            f"{text}; {wrong}",
            *keys,
            advice=f"choose {key} around these sizes, or another {keys[1]}",
        )
    else:
        yield ok(text, *keys)


def _sides(file: AnnotationFile, rule: SizeRule) -> Iterator[float]:
    """Yield the square root of the box area of every usable object at the middle training size."""
    middle = sorted(rule.short_sides)[len(rule.short_sides) // 2]
    degenerate = file.columns.degenerate()
    for image in file.images:
        width, height = image["width"], image["height"]
        new_width, new_height = rule.size(width, height, middle)
        scale = math.sqrt(new_width * new_height / (width * height))
        rows = file.anns_by_image.rows(image["id"])
        valid = rows[~degenerate[rows]]
        yield from (scale * np.sqrt(file.columns.boxes[valid, 2] * file.columns.boxes[valid, 3])).tolist()
