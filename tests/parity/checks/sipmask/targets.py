"""Checks of what every location of FCOS learns (SipMask spec 2.3)."""

from __future__ import annotations

from pathlib import Path

import torch

from checks.checker import Checker
from checks.store import read_pair
from maskrcnn_benchmark.modeling.heads.fcos.targets import assign, centerness_of, level_locations
from maskrcnn_benchmark.structures.boxlist import BoxList

STRIDES = (8, 16, 32, 64, 128)


def check_targets(folder: Path, checker: Checker) -> None:
    """`fcos_targets.json` and `fcos_targets.npz`: labels, objects, distances and centerness, exactly."""
    info, arrays = read_pair(folder, "fcos_targets")
    height, width = info["image_hw"]
    target = BoxList(torch.tensor(info["boxes_xyxy"]), (width, height))
    target.add_field("labels", torch.tensor(info["labels"]))
    sizes = [(int(h), int(w)) for h, w in info["level_sizes_hw"]]
    locations = level_locations(sizes, STRIDES, torch.device("cpu"))
    for radius in sorted({name.split(".labels")[0] for name in arrays if ".labels" in name}):
        with checker.section(f"fcos_targets.{radius}"):
            found = assign(locations, STRIDES, target, radius=float(radius))
            counts = [len(points) for points in locations]
            levels = zip(found.labels.split(counts), found.distances.split(counts), strict=True)
            for level, (labels, distances) in enumerate(levels, start=3):
                wanted = arrays[f"{radius}.labels.P{level}"]
                checker.equal(f"labels.P{level}", labels, wanted)
                positive = wanted > 0
                checker.equal(
                    f"reg.P{level}",
                    distances.numpy()[positive],
                    arrays[f"{radius}.reg.P{level}"][positive],
                )
            positives = found.labels > 0
            checker.equal("gt_index", found.matches[positives], arrays[f"{radius}.gt_index"])
            centerness = centerness_of(found.distances[positives])
            checker.values("centerness", centerness, arrays[f"{radius}.centerness"], 1e-6)
