"""Checks of the LVIS evaluation per phase, per class and as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from checks.checker import Checker
from checks.lst.data import annotation_file, read_plan
from checks.store import read_arrays
from maskrcnn_benchmark.evaluation.ap import APResult
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.groups import group_ap
from maskrcnn_benchmark.evaluation.protocols.lvis import evaluate_lvis
from maskrcnn_benchmark.incremental.plan.split import derive_val_annotations
from maskrcnn_benchmark.utils.files import read_json


def check_evaluation(path: Path, checker: Checker) -> None:
    """Every case of `eval.json` (a phase's file, or the whole one) and the arrays of
    `eval_precision.npz`.
    """
    expected, folder = read_json(path, what="reference file"), path.parent
    phases: dict[str, list[int]] = {}
    for category, name in expected["_phase_of_category"].items():
        phases.setdefault(f"AP{name}", []).append(int(category))
    whole = annotation_file(folder, "val")
    results = read_json(folder / "detections_val.json", what="detections")
    with checker.section("eval"):
        for case, tasks in expected.items():
            if case.startswith("_"):
                continue
            dataset = _dataset(folder, whole, case)
            images = {image["id"] for image in dataset["images"]}
            categories = {category["id"] for category in dataset["categories"]}
            if case != "full":
                # a phase's model knows its classes only; the base file lists all
                categories &= set(_seen(folder, case))
            kept = [r for r in results if r["image_id"] in images and r["category_id"] in categories]
            checker.equal(f"{case}.n_detections_in", len(kept), tasks["n_detections_in"])
            detections = Detections.from_json(kept)
            for iou_type in ("bbox", "segm"):
                with checker.section(f"{case}.{iou_type}"):
                    _check_task(
                        evaluate_lvis(dataset, detections, iou_type), tasks[iou_type], phases, checker
                    )
        arrays = read_arrays(folder / "eval_precision.npz")
        if arrays:
            _check_arrays(evaluate_lvis(whole, Detections.from_json(results), "bbox"), arrays, checker)


def _phase(case: str) -> int:
    return 0 if case == "base" else int(case.removeprefix("step"))


def _seen(folder: Path, case: str) -> list[int]:
    return read_plan(folder).seen_ids(_phase(case))


def _dataset(folder: Path, whole: dict[str, Any], case: str) -> dict[str, Any]:
    return (
        whole
        if case == "full"
        else derive_val_annotations(whole, read_plan(folder), _phase(case), "positive")
    )


def _check_task(
    result: APResult, expected: dict[str, Any], phases: dict[str, list[int]], checker: Checker
) -> None:
    checker.equal("n_detections_after_limit", result.num_detections, expected["n_detections_after_limit"])
    metrics = result.metrics()
    for name, value in expected["metrics"].items():
        checker.close(name, metrics[name], value)
    groups = group_ap(result, phases)
    for name, value in expected["per_phase_AP"].items():
        checker.close(f"per_phase.{name}", groups.get(name, -1.0), value)
    for name, got in (("AP", result.per_category()), ("recall", result.per_category_recall())):
        values = expected[f"per_category_{name}"]
        checker.same(f"per_category_{name}.ids", sorted(got), sorted(int(c) for c in values))
        checker.close(f"per_category_{name}", [got[int(c)] for c in values], list(values.values()))


def _check_arrays(result: APResult, arrays: dict[str, np.ndarray], checker: Checker) -> None:
    with checker.section("arrays"):
        checker.equal("cat_ids", result.category_ids, arrays["cat_ids"])
        checker.close("precision", result.precision, arrays["precision"])
        checker.close("recall", result.recall, arrays["recall"])
