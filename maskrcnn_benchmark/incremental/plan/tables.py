"""Classes of a plan in tables and charts: by phase, and by frequency group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan
from maskrcnn_benchmark.utils.table import format_table

FREQUENCIES = {"f": "frequent", "c": "common", "r": "rare"}
_COUNTS = ("most instances", "median", "least", "together")


def format_phases(plan: PhasePlan) -> str:
    """One row per phase: classes, those seen, instances of a class, frequency groups."""
    rows = []
    for phase in range(plan.num_phases):
        new = plan.classes[plan.num_old(phase) : plan.num_seen(phase)]
        frequency = Counter(c.frequency for c in new)
        mix = "/".join(str(frequency[f]) for f in "rcf")
        rows.append([phase, len(new), plan.num_seen(phase), *_counts(new), mix])
    return format_table(["phase", "classes", "seen", *_COUNTS, "rare/common/frequent"], rows)


def format_frequencies(plan: PhasePlan) -> str:
    """One row per frequency group that has classes: their number, instances of a class, images of a class.

    Classes of files without frequencies are in one row "all".
    """
    rows = []
    for key, name in {**FREQUENCIES, "": "all"}.items():
        classes = [c for c in plan.classes if c.frequency == key]
        if classes:
            images = [c.image_count for c in classes]
            rows.append([name, len(classes), *_counts(classes), max(images), min(images)])
    return format_table(["group", "classes", *_COUNTS, "most images", "fewest"], rows)


def labels_by_frequency(plan: PhasePlan) -> dict[str, list[int]]:
    """Labels of the classes of every frequency group that has some, most frequent first; see above."""
    groups = {name: key for key, name in {**FREQUENCIES, "": "all"}.items()}
    labels = {
        name: [label for label, c in enumerate(plan.classes, start=1) if c.frequency == key]
        for name, key in groups.items()
    }
    return {name: found for name, found in labels.items() if found}


def phase_bands(plan: PhasePlan, seen: int | None = None) -> dict[str, int]:
    """ "base", "step 1", ... -> number of classes, for charts over the classes (the first `seen` of them).

    Follows `report_sizes` where the plan has them, as the class groups of reports do.
    """
    left = len(plan.classes) if seen is None else seen
    bands: dict[str, int] = {}
    for number, size in enumerate(plan.report_sizes or plan.sizes):
        if left > 0:
            bands[f"step {number}" if number else "base"] = min(size, left)
        left -= size
    return bands


def _counts(classes: Sequence[ClassInfo]) -> list[float]:
    """Most, median, least and all instances of some classes."""
    counts = [c.instance_count for c in classes]
    return [max(counts), float(median(counts)), min(counts), sum(counts)]
