"""Instances per class of a step before and after balanced replay."""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan
from maskrcnn_benchmark.utils.table import format_table

_COLUMNS = ("label", "name", "group", "images", "instances", "draws", "instances_after")
_HEADERS = ("label", "class", "group", "images", "instances", "samples per epoch", "instances after")


def class_statistics(replay: ReplayPlan, plan: PhasePlan) -> list[dict[str, Any]]:
    """One record per class seen after the step, in label order.

    Keys: label, category_id, name, group; `images` and `instances` of the training file (valid pairs);
    `draws`: samples in an epoch; `instances_after`: expected instances of the class in these samples.
    """
    group = plan.group_of_category()
    records = []
    for position, c in enumerate(plan.classes[: len(replay.images)]):
        images, instances = replay.images[position], replay.instances[position]
        draws = replay.counts[position] if position < replay.num_old else images
        records.append(
            {
                "label": position + 1,
                "category_id": c.category_id,
                "name": c.name,
                "group": group[c.category_id],
                "images": images,
                "instances": instances,
                "draws": draws,
                "instances_after": draws * instances / images if images else 0.0,
            }
        )
    return records


def replay_statistics(replay: ReplayPlan, plan: PhasePlan) -> dict[str, Any]:
    """Statistics of a step as plain data: epoch, mean of the new classes, and `class_statistics`."""
    return {
        "phase": replay.phase,
        "pictures": len(replay.image_ids),  # key of published statistics files
        "mean_new_instances": replay.mean_new,
        "new_pairs": len(replay.new_pairs),
        "replayed": sum(replay.counts),
        "epoch_length": replay.epoch_length,
        "raised_to_minimum": sum(
            raw < n for raw, n in zip(replay.raw_counts, replay.counts, strict=True) if n
        ),
        "classes": class_statistics(replay, plan),
    }


def format_statistics(statistics: dict[str, Any], rows: int | None = None) -> str:
    """Format the epoch, a table of class groups, and one of classes (the first and last `rows`)."""
    images, classes = statistics["pictures"], statistics["classes"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in classes:
        groups.setdefault(record["group"], []).append(record)
    table = [
        [
            name,
            len(members),
            *_min_mean_max(members, "instances"),
            *_min_mean_max(members, "instances_after"),
            sum(record["draws"] for record in members),
        ]
        for name, members in groups.items()
    ]
    headers = (
        "group",
        "classes",
        "min",
        "mean",
        "max",
        "min after",
        "mean after",
        "max after",
        "samples",
    )
    shown = classes if rows is None or 2 * rows >= len(classes) else [*classes[:rows], *classes[-rows:]]
    return "\n\n".join(
        [
            f"Step {statistics['phase']}: {images} images; an epoch has "
            f"{statistics['epoch_length']} samples, {statistics['new_pairs']} of new classes and "
            f"{statistics['replayed']} of old ones; a new class has {statistics['mean_new_instances']:.2f} "
            "instances on average",
            "Instances of a class before and after balancing:\n" + format_table(headers, table),
            format_table(_HEADERS, [[record[key] for key in _COLUMNS] for record in shown]),
        ]
    )


def _min_mean_max(records: list[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """Minimum, mean and maximum of one key."""
    values = [float(record[key]) for record in records]
    return min(values), sum(values) / len(values), max(values)
