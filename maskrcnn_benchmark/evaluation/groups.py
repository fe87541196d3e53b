"""AP over groups of categories: LVIS frequency, bins of training instances, LST phases, or given ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maskrcnn_benchmark.evaluation.ap import APResult, ClassAP

# Edges of the bins of LST (Hu et al. 2020): (0,10) [10,100) [100,1000) [1000,inf).
INSTANCE_EDGES = (10, 100, 1000)


def group_ap(result: APResult | ClassAP, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean AP of every group of category ids over its defined categories; -1 if there is none."""
    return {name: result.mean_precision(category_ids=list(ids)) for name, ids in groups.items()}


def frequency_groups(categories: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Group categories as "rare", "common", "frequent" by their `frequency` (r, c, f); {} without it."""
    groups: dict[str, list[int]] = {"rare": [], "common": [], "frequent": []}
    names = {"r": "rare", "c": "common", "f": "frequent"}
    for category in categories:
        if category.get("frequency") in names:
            groups[names[category["frequency"]]].append(int(category["id"]))
    return groups if any(groups.values()) else {}


def instance_bins(counts: Mapping[int, int], edges: Sequence[int] = INSTANCE_EDGES) -> dict[str, list[int]]:
    """Group categories by their number of training instances: "(0,10)", "[10,100)", ..., "[1000,inf)".

    `counts`: category id -> instances in the training set. Categories without any instance are in no bin.
    """
    lows, highs = [1, *edges], [*edges, float("inf")]
    names = [f"{'(0' if low == 1 else f'[{low}'},{high})" for low, high in zip(lows, highs, strict=True)]
    bins: dict[str, list[int]] = {name: [] for name in names}
    for category, count in sorted(counts.items()):
        for name, low, high in zip(names, lows, highs, strict=True):
            if low <= count < high:
                bins[name].append(int(category))
    return bins


def phase_name(phase: int) -> str:
    """Label of the published LST evaluation: "b0" for the base phase 0, "t<i-1>" for step i."""
    return "b0" if phase == 0 else f"t{phase - 1}"


def step_state_groups(categories: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Group categories as b0, t0, t1, ... by the `step_state` of LST annotation files; {} without it."""
    groups: dict[str, list[int]] = {}
    for category in categories:
        if "step_state" in category:
            groups.setdefault(str(category["step_state"]), []).append(int(category["id"]))
    return {name: groups[name] for name in sorted(groups, key=lambda n: (n[:1], len(n), n))}
