"""What balanced replay does to every class of a step: counts before and after (lst spec section 3)."""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan
from maskrcnn_benchmark.utils.table import format_table

_COLUMNS = ("label", "name", "group", "images", "instances", "draws", "instances_after")
_HEADERS = ("label", "class", "group", "images", "instances", "draws per epoch", "instances after")


def class_statistics(replay: ReplayPlan, plan: PhasePlan) -> list[dict[str, Any]]:
    """One record per class seen after the step, in label order.

    Keys: label, category_id, name, group; `images` and `instances` of the training file (valid pairs);
    `draws` in an epoch; `instances_after`: expected instances of the class in the images drawn for it.
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
    """Numbers of a step as plain data: epoch, mean of the new classes, and `class_statistics`."""
    return {
        "phase": replay.phase,
        "pictures": len(replay.image_ids),
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
    """Text: the epoch, a table per class group, and one of the classes (the first and last `rows`)."""
    classes = statistics["classes"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in classes:
        groups.setdefault(record["group"], []).append(record)
    table = [
        [name, len(some), *_span(some, "instances"), *_span(some, "instances_after"), _total(some, "draws")]
        for name, some in groups.items()
    ]
    headers = (
        "group",
        "classes",
        "least",
        "mean",
        "most",
        "least after",
        "mean after",
        "most after",
        "draws",
    )
    shown = classes if rows is None or 2 * rows >= len(classes) else [*classes[:rows], *classes[-rows:]]
    return "\n\n".join(
        [
            f"Step {statistics['phase']}: {statistics['pictures']} images; an epoch has "
            f"{statistics['epoch_length']} draws, {statistics['new_pairs']} of new classes and "
            f"{statistics['replayed']} of old ones; a new class has {statistics['mean_new_instances']:.2f} "
            "instances on average",
            "Instances of a class before and after balancing:\n" + format_table(headers, table),
            format_table(_HEADERS, [[record[key] for key in _COLUMNS] for record in shown]),
        ]
    )


def _span(records: list[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """Least, mean and largest value."""
    values = [float(record[key]) for record in records]
    return min(values), sum(values) / len(values), max(values)


def _total(records: list[dict[str, Any]], key: str) -> int:
    return sum(record[key] for record in records)
