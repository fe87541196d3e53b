"""Tables of the classes of a plan, by phase and by frequency group, and the bands of charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan
from maskrcnn_benchmark.utils.table import format_table

FREQUENCIES = {"f": "frequent", "c": "common", "r": "rare"}
_COUNTS = ("max instances", "median", "min", "total")


def format_phases(plan: PhasePlan) -> str:
    """Format a row per phase: new classes, classes seen, instances per class, frequency groups."""
    rows = []
    for phase in range(plan.num_phases):
        new = plan.classes[plan.num_old(phase) : plan.num_seen(phase)]
        frequency = Counter(c.frequency for c in new)
        mix = "/".join(str(frequency[f]) for f in "rcf")
        rows.append([phase, len(new), plan.num_seen(phase), *_counts(new), mix])
    return format_table(["phase", "classes", "seen", *_COUNTS, "rare/common/frequent"], rows)


def format_frequencies(plan: PhasePlan) -> str:
    """Format a row per non-empty frequency group: classes, instances per class, images per class.

    Classes of files without frequencies are in one row "all".
    """
    rows = []
    for key, name in {**FREQUENCIES, "": "all"}.items():
        classes = [c for c in plan.classes if c.frequency == key]
        if classes:
            images = [c.image_count for c in classes]
            rows.append([name, len(classes), *_counts(classes), max(images), min(images)])
    return format_table(["group", "classes", *_COUNTS, "max images", "min"], rows)


def labels_by_frequency(plan: PhasePlan) -> dict[str, list[int]]:
    """Labels of each non-empty frequency group, most frequent first; "all" for files without frequencies."""
    groups = {name: key for key, name in {**FREQUENCIES, "": "all"}.items()}
    labels = {
        name: [label for label, c in enumerate(plan.classes, start=1) if c.frequency == key]
        for name, key in groups.items()
    }
    return {name: members for name, members in labels.items() if members}


def phase_bands(plan: PhasePlan, seen: int | None = None) -> dict[str, int]:
    """ "base", "step 1", ... -> number of classes, for charts over the classes (the first `seen` of them).

    Follows `report_sizes` where the plan has them, as the class groups of reports do.
    """
    left = len(plan.classes) if seen is None else seen
    bands: dict[str, int] = {}
    for index, size in enumerate(plan.report_sizes or plan.sizes):
        if left > 0:
            bands[f"step {index}" if index else "base"] = min(size, left)
        left -= size
    return bands


def _counts(classes: Sequence[ClassInfo]) -> list[float]:
    """Maximum, median, minimum and total number of instances of `classes`."""
    counts = [c.instance_count for c in classes]
    return [max(counts), float(median(counts)), min(counts), sum(counts)]
