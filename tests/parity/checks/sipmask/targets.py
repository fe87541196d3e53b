"""Checks of FCOS target assignment (Tian et al. 2019, section 3.2) with and without center sampling."""

from __future__ import annotations

from pathlib import Path

import torch

from checks.checker import Checker
from checks.store import read_pair
from maskrcnn_benchmark.modeling.heads.common import grid_locations
from maskrcnn_benchmark.modeling.heads.fcos.targets import assign_locations, centerness_target
from maskrcnn_benchmark.structures.boxlist import BoxList


def check_targets(path: Path, checker: Checker) -> None:
    """Labels, matches, distances and centerness of every radius that the arrays list, exactly."""
    info, arrays = read_pair(path)
    height, width = info["image_hw"]
    target = BoxList(torch.tensor(info["boxes_xyxy"]), (width, height))
    target.add_field("labels", torch.tensor(info["labels"]))
    sizes = [(int(h), int(w)) for h, w in info["level_sizes_hw"]]
    names = sorted({int(name.rpartition(".P")[2]) for name in arrays if ".labels.P" in name})
    strides = [2**level for level in names]
    locations = grid_locations(sizes, strides, torch.device("cpu"))
    for radius in sorted({name.split(".labels")[0] for name in arrays if ".labels" in name}):
        with checker.section(f"{path.stem}.{radius}"):
            assigned = assign_locations(locations, strides, target, radius=float(radius))
            counts = [len(points) for points in locations]
            levels = zip(names, assigned.labels.split(counts), assigned.distances.split(counts), strict=True)
            for level, labels, distances in levels:
                expected = arrays[f"{radius}.labels.P{level}"]
                checker.equal(f"labels.P{level}", labels, expected)
                positive = expected > 0
                checker.equal(
                    f"reg.P{level}",
                    distances.numpy()[positive],
                    arrays[f"{radius}.reg.P{level}"][positive],
                )
            positives = assigned.labels > 0
            checker.equal("gt_index", assigned.matches[positives], arrays[f"{radius}.gt_index"])
            centerness = centerness_target(assigned.distances[positives])
            checker.values("centerness", centerness, arrays[f"{radius}.centerness"], 1e-6)
