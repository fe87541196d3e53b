"""Checks of the class order, derived annotation files and growth of LST."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checks.checker import Checker
from maskrcnn_benchmark.incremental.growth.checkpoint import grow_state
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.split import (
    build_plan,
    derive_train_annotations,
    derive_val_annotations,
    sorted_category_ids,
)
from maskrcnn_benchmark.utils.files import read_json

PREDICTOR = "roi_heads.box.predictor."


def annotation_file(folder: Path, part: str) -> dict[str, Any]:
    """The training or validation annotations of a folder: the one file whose name ends in `_<part>.json`.

    Raises FileNotFoundError naming the folder.
    """
    for path in sorted(folder.glob(f"*_{part}.json")):
        content = read_json(path, what="annotation file")
        if isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content):
            return content
    raise FileNotFoundError(f"no annotation file *_{part}.json in {folder}")


def read_plan(folder: Path) -> PhasePlan:
    """The phases that `splits.json` names, over the training annotations of the folder.

    Classes beyond the last step form one more phase, for which the file lists nothing.
    """
    info = read_json(folder / "splits.json", what="reference file")
    data = annotation_file(folder, "train")
    rest = len(data["categories"]) - info["base_size"]
    steps = (
        [info["step_size"]] * info["n_step"]
        if isinstance(info["step_size"], int)
        else list(info["step_size"])
    )
    if sum(steps) > rest:
        steps[-1] -= sum(steps) - rest
    if sum(steps) < rest:
        steps.append(rest - sum(steps))
    return build_plan(data, sorted_category_ids(data), info["base_size"], steps)


def check_splits(path: Path, checker: Checker) -> None:
    """Class order and every derived file that `splits.json` lists."""
    info, folder = read_json(path, what="reference file"), path.parent
    data = {"train": annotation_file(folder, "train"), "val": annotation_file(folder, "val")}
    with checker.section("splits"):
        checker.equal("sorted_id_all", sorted_category_ids(data["train"]), info["sorted_id_all"])
        plan = read_plan(folder)
        for phase in range(plan.num_phases):
            name = "base" if phase == 0 else f"step{phase}"
            if f"sorted_id_{name}" in info:
                checker.equal(f"sorted_id_{name}", plan.seen_ids(phase), info[f"sorted_id_{name}"])
            for part, build in (("train", derive_train_annotations), ("val", derive_val_annotations)):
                expected = info["splits"].get(f"{part}_{name}")
                if expected is not None:
                    got = build(data[part], plan, phase)
                    _check_file(checker, f"{part}_{name}", data[part], got, expected, exact_order=phase == 0)


def _check_file(
    checker: Checker,
    name: str,
    source: dict[str, Any],
    got: dict[str, Any],
    expected: dict[str, Any],
    *,
    exact_order: bool,
) -> None:
    """Images, categories and keys exactly; annotations exactly for the base, else as sets per class and by
    image.
    """
    ids_of_file = [a["id"] for a in got["annotations"]]
    with checker.section(name):
        checker.equal("image_ids", [i["id"] for i in got["images"]], expected["image_ids"])
        checker.equal("category_ids", [c["id"] for c in got["categories"]], expected["category_ids"])
        checker.same("top_level_keys", sorted(got), sorted(expected["top_level_keys"]))
        if exact_order:
            checker.equal("annotation_ids", ids_of_file, expected["annotation_ids"])
        owner = {a["id"]: a for a in source["annotations"]}
        for label, key in (("by_class", "category_id"), ("by_image", "image_id")):
            ours, theirs = (_grouped(ids, owner, key) for ids in (ids_of_file, expected["annotation_ids"]))
            if key == "category_id":
                ours, theirs = ({k: sorted(v) for k, v in g.items()} for g in (ours, theirs))
            checker.same(label, ours, theirs)


def _grouped(ids: list[int], owner: dict[int, dict[str, Any]], key: str) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for annotation in ids:
        groups[owner[annotation][key]].append(annotation)
    return dict(groups)


def check_phase_labels(path: Path, checker: Checker) -> None:
    """`step_state` of the derived validation files against the right labels, which `eval.json` holds."""
    right = read_json(path, what="reference file")["_phase_of_category"]
    plan, data = read_plan(path.parent), annotation_file(path.parent, "val")
    with checker.section("step_state"):
        for phase in range(plan.num_phases):
            got = {
                str(c["id"]): c["step_state"] for c in derive_val_annotations(data, plan, phase)["categories"]
            }
            checker.same(f"phase{phase}", got, {category: right[category] for category in got})


def check_grow(path: Path, checker: Checker) -> None:
    """Growth of a checkpoint: old class weights unchanged, moments of the new ones, the scale kept."""
    cases = read_json(path, what="reference file")
    generator = torch.Generator().manual_seed(0)
    with checker.section("grow"):
        for case in cases:
            with checker.section(f"step{case['step']}"):
                names = [name for name in case if isinstance(case[name], dict)]
                state = {
                    f"{PREDICTOR}{name}": torch.randn(case[name]["old_shape"], generator=generator)
                    for name in names
                }
                state[f"{PREDICTOR}scale_cls"] = torch.tensor([float(case["scale_cls_kept"])])
                new = case["cls_score.weight"]["new_shape"][0]
                grown = grow_state(
                    state, case["old_rows"], new, cls_std=0.01, reg_std=0.001, generator=generator
                )
                checker.values("scale_cls_kept", grown[f"{PREDICTOR}scale_cls"], [case["scale_cls_kept"]])
                for name in names:
                    key = f"{PREDICTOR}{name}"
                    _check_rows(checker, name, state[key], grown[key], case[name])


def _check_rows(
    checker: Checker, name: str, old: torch.Tensor, grown: torch.Tensor, expected: dict[str, Any]
) -> None:
    """Shape and old class weights exactly; mean and std of the new ones within four standard errors."""
    checker.equal(f"{name}.shape", list(grown.shape), expected["new_shape"])
    kept = bool(torch.equal(grown[: len(old)], old))
    checker.equal(f"{name}.old_rows_identical", kept, expected["old_rows_identical"])
    fresh = grown[len(old) :].double()
    std, count = expected["new_rows_std"], fresh.numel()
    error = np.sqrt(2.0) * std / np.sqrt(count)
    difference = abs(float(fresh.mean()) - expected["new_rows_mean"])
    checker.add(f"{name}.new_rows_mean", difference, 4 * error)
    difference = abs(float(fresh.std(unbiased=False)) - std)
    checker.add(f"{name}.new_rows_std", difference, 4 * error / np.sqrt(2.0))
