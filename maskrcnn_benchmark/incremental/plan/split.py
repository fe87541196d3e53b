"""Class order, valid (image, class) pairs and the derived annotations of each phase.

Works on annotation dictionaries of COCO or LVIS layout. The scheduler trains from the two original files with
a filter in memory; the derived files are written only on request (`split_files`) and equal the released
ones in content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.data.datasets.annotations import is_degenerate
from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan, phase_sizes
from maskrcnn_benchmark.utils.errors import ConfigError, DataError
from maskrcnn_benchmark.utils.files import read_json
from maskrcnn_benchmark.utils.text import shortened

Annotations = dict[str, Any]
SORT_KEYS = ("instance_count", "image_count", "file")
VAL_RULES = ("all", "positive")


def valid_pairs(annotations: Iterable[dict[str, Any]]) -> dict[int, dict[int, int]]:
    """Category id -> {image id: number of annotations} for every valid (image, class) pair.

    A pair is valid unless all its annotations are degenerate; then all of them count, the degenerate ones
    too. Crowd annotations (COCO files only) are no instances. Images keep the order of first appearance.
    """
    counts: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    valid: dict[int, set[int]] = defaultdict(set)
    for ann in annotations:
        if ann.get("iscrowd", 0):
            continue
        category, image = ann["category_id"], ann["image_id"]
        counts[category][image] += 1
        if not is_degenerate(ann):
            valid[category].add(image)
    return {c: {i: n for i, n in images.items() if i in valid[c]} for c, images in counts.items()}


def category_counts(data: Annotations) -> dict[int, tuple[int, int]]:
    """Category id -> (instances, images): as stored in the file, or counted where it stores none."""
    instances: dict[int, int] = defaultdict(int)
    images: dict[int, set[int]] = defaultdict(set)
    if not all("instance_count" in c and "image_count" in c for c in data["categories"]):
        for ann in data["annotations"]:
            if not ann.get("iscrowd", 0):
                instances[ann["category_id"]] += 1
                images[ann["category_id"]].add(ann["image_id"])
    return {
        c["id"]: (
            int(c.get("instance_count", instances[c["id"]])),
            int(c.get("image_count", len(images[c["id"]]))),
        )
        for c in data["categories"]
    }


def sorted_category_ids(data: Annotations, sort_by: str = "instance_count") -> list[int]:
    """Category ids in descending order of frequency, ascending id among equals.

    `sort_by`: "instance_count" (published), "image_count", or "file" for the order of the file itself.
    """
    if sort_by not in SORT_KEYS:
        raise ConfigError(f'LST.SORT_BY is "{sort_by}", expected one of {", ".join(SORT_KEYS)}')
    ids = [c["id"] for c in data["categories"]]
    if sort_by == "file":
        return ids
    counts = category_counts(data)
    column = 0 if sort_by == "instance_count" else 1
    # parity: ascending id among equal counts, whatever the order in the file
    return sorted(sorted(ids), key=lambda i: -counts[i][column])


def check_sorted_ids(ids: Any, data: Annotations, where: str) -> list[int]:
    """Validate an external class order: DataError unless it names each category exactly once."""
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        raise DataError(f"{where}: expected a JSON list of category ids")
    known = {c["id"] for c in data["categories"]}
    unknown, missing = sorted(set(ids) - known), sorted(known - set(ids))
    if unknown or missing or len(ids) != len(set(ids)):
        raise DataError(
            f"{where}: the list must name each of the {len(known)} categories of the annotations once; "
            f"unknown ids {shortened(unknown[:5])}, missing ids {missing[:5]}, "
            f"repeated {len(ids) - len(set(ids))}"
        )
    return ids


def leading_category_ids(ids: Any, count: int, where: str) -> list[int]:
    """First `count` ids of an external class order; DataError unless they are different ints."""
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        raise DataError(f"{where}: expected a JSON list of category ids")
    leading = ids[:count]
    if len(set(leading)) != count:
        what = f"has {len(ids)} ids" if len(ids) < count else "names a category twice"
        raise DataError(
            f"{where}: {what}, but this phase has {count} classes: give the list of this or a later phase"
        )
    return leading


def build_plan(
    data: Annotations, ids: Sequence[int], base_size: int, step_size: int | Sequence[int]
) -> PhasePlan:
    """Plan for the classes in the order `ids`, with counts from the training annotations `data`."""
    counts, pairs = category_counts(data), valid_pairs(data["annotations"])
    records = {c["id"]: c for c in data["categories"]}
    classes = tuple(
        ClassInfo(
            category_id=i,
            name=records[i]["name"],
            frequency=str(records[i].get("frequency", "")),
            instance_count=counts[i][0],
            image_count=counts[i][1],
            train_instances=sum(pairs.get(i, {}).values()),
            train_images=len(pairs.get(i, {})),
        )
        for i in ids
    )
    return PhasePlan(classes, phase_sizes(base_size, step_size, len(classes)))


def plan_from_cfg(cfg: CfgNode, data: Annotations) -> PhasePlan:
    """Plan that node LST describes for the training annotations `data`.

    Raises:
        UsageError: the sizes of the phases, or the class order of LST.SORTED_IDS, do not fit the categories.
    """
    lst = cfg.LST
    if lst.SORTED_IDS:
        ids = check_sorted_ids(read_json(lst.SORTED_IDS, what="class order"), data, lst.SORTED_IDS)
    else:
        ids = sorted_category_ids(data, lst.SORT_BY)
    step_size = lst.STEP_SIZE if isinstance(lst.STEP_SIZE, int) else list(lst.STEP_SIZE)
    return build_plan(data, ids, lst.BASE_SIZE, step_size).with_report_sizes(lst.REPORT_SIZES)


@dataclass(frozen=True)
class ClassGroups:
    """Annotations of each category in file order, and its valid pairs (see `valid_pairs`)."""

    annotations: dict[int, list[dict[str, Any]]]
    pairs: dict[int, dict[int, int]]


def group_by_class(data: Annotations) -> ClassGroups:
    """Group annotations by category, once where several phases are derived."""
    grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for ann in data["annotations"]:
        grouped[ann["category_id"]].append(ann)
    return ClassGroups(grouped, valid_pairs(data["annotations"]))


def _with_state(categories: Iterable[dict[str, Any]], plan: PhasePlan) -> list[dict[str, Any]]:
    """Copies of category records with the class group of each under `step_state`; none for other classes."""
    state = plan.by_phase().group_of_category()
    return [c | {"step_state": state[c["id"]]} if c["id"] in state else c for c in categories]


def derive_train_annotations(
    data: Annotations, plan: PhasePlan, phase: int, groups: ClassGroups | None = None
) -> Annotations:
    """Derive the training annotations of a phase.

    Base: all images, annotations of the base classes, class by class. Step: the images with a valid pair of
    any class seen so far, with the annotations of these pairs. Per image the annotations are in (label, file)
    order. `groups`: `group_by_class(data)` where it is known.
    """
    groups = groups or group_by_class(data)
    grouped, seen = groups.annotations, plan.seen_ids(phase)
    if phase == 0:
        return data | {"annotations": [a for i in seen for a in grouped.get(i, [])]}
    pairs = {i: groups.pairs.get(i, {}) for i in seen}
    kept_images = {image for images in pairs.values() for image in images}
    return {
        "annotations": [a for i in seen for a in grouped.get(i, []) if a["image_id"] in pairs[i]],
        "categories": [c for c in data["categories"] if c["id"] in set(seen)],
        "images": [im for im in data["images"] if im["id"] in kept_images],
    }


def derive_val_annotations(
    data: Annotations, plan: PhasePlan, phase: int, rule: str = "positive"
) -> Annotations:
    """Derive the validation annotations of a phase, with `step_state` in every category.

    Rule "positive" is the released one: the base keeps all images and categories, a step only the categories
    seen so far and the images with an annotation of one. Rule "all" keeps every image in every phase, so that
    phases are compared on the same images, and only the categories seen so far.
    """
    if rule not in VAL_RULES:
        raise ConfigError(f'LST.VAL_IMAGES is "{rule}", expected one of {", ".join(VAL_RULES)}')
    grouped, seen = group_by_class(data).annotations, plan.seen_ids(phase)
    annotations = [a for i in seen for a in grouped.get(i, [])]
    if rule == "positive" and phase == 0:
        return data | {"annotations": annotations, "categories": _with_state(data["categories"], plan)}
    positive = {a["image_id"] for a in annotations}
    return {
        "annotations": annotations,
        "categories": _with_state((c for c in data["categories"] if c["id"] in set(seen)), plan),
        "images": [im for im in data["images"] if rule == "all" or im["id"] in positive],
    }
