"""Check the categories of the data against class counts of the model and phases of an LST run."""

from __future__ import annotations

from collections.abc import Iterator

from maskrcnn_benchmark.config.models import class_count, class_count_key
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.doctor.checkup import TEST, TRAIN, Checkup, DataSource
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, keys_in, listed, note, ok, warning
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import PLAN_FILE
from maskrcnn_benchmark.structures.class_list import ClassList, map_classes
from maskrcnn_benchmark.utils.errors import UsageError

_NUM = "MODEL.ROI_BOX_HEAD.NUM_CLASSES"
_SIZES = ("LST.BASE_SIZE", "LST.STEP_SIZE")


def check_classes(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on the class lists."""
    train = checkup.annotations(TRAIN)
    if checkup.lst:
        yield from _phases(checkup)
        yield from _validation(checkup, train[0][1])
        return
    expected, key = class_count(checkup.cfg), class_count_key(checkup.cfg) or _NUM
    try:
        test = checkup.annotations(TEST)
    except NotChecked as why:
        yield note(f"test classes are not compared: {why}", "DATASETS.TEST")
        test = []
    for source, file in [*train, *test]:
        yield from _count(source, file, expected, key)
    for source, file in [*train[1:], *test]:
        yield from _same_list(train[0], source, file)


def _count(
    source: DataSource, annotations: AnnotationFile, expected: int | None, key: str
) -> Iterator[Finding]:
    """Compare the categories of a data set with NUM_CLASSES, which `key` holds."""
    count = len(annotations.categories) + 1
    if expected is None or count == expected:
        yield ok(f"{source.spec.name}: {count - 1} categories and the background", key)
        return
    yield error(
        f"{key} is {expected}, but {source.spec.ann_file} has {count - 1} categories (+ 1 background)",
        key,
        source.ann_key,
        advice=f"set {key} {count}",
    )


def _same_list(
    first: tuple[DataSource, AnnotationFile], source: DataSource, annotations: AnnotationFile
) -> Iterator[Finding]:
    """Compare two lists of categories by the rule of training and testing."""
    one, other = (
        ClassList.of_categories(file.categories, where.spec.ann_file)
        for where, file in (first, (source, annotations))
    )
    if (one.ids, one.names) == (other.ids, other.names) or len(one) != len(other):
        return  # another number is reported by _count
    try:
        order = map_classes(one, other)
    except UsageError as problem:
        yield error(
            str(problem),
            first[0].ann_key,
            source.ann_key,
            advice="give all files the same categories",
        )
        return
    same_ids = tuple(order) == one.ids
    how = "lists the same categories in another order" if same_ids else "has other ids for the same names"
    yield note(f"{source.spec.name} {how}: they are mapped to those of {first[0].spec.name}", source.ann_key)


def _phases(checkup: Checkup) -> Iterator[Finding]:
    """Check the split of the classes, and that each part has training objects."""
    try:
        plan = checkup.plan
    except UsageError as problem:
        keys = keys_in(str(problem)) or ["LST.SORTED_IDS"]
        yield error(str(problem), *keys, advice=f"correct {' or '.join(keys)}")
        return
    sizes = " + ".join(str(size) for size in plan.sizes)
    first, last = plan.classes[0], plan.classes[-1]
    order = "LST.SORTED_IDS" if checkup.cfg.LST.SORTED_IDS else "LST.SORT_BY"
    yield ok(
        f"{len(plan.classes)} classes in {plan.num_phases} phases ({sizes}); order by {order}: from "
        f"{first.name!r} ({first.instance_count} objects) to {last.name!r} ({last.instance_count})",
        *_SIZES,
        order,
    )
    counts = [c.instance_count for c in plan.classes]
    if order == "LST.SORTED_IDS" and counts != sorted(counts, reverse=True):
        yield note("LST.SORTED_IDS is not ordered by the number of objects, as the published list is", order)
    unused = [c.name for c in plan.classes if not c.train_images]
    if unused:
        yield warning(
            f"{len(unused)} classes have no usable training object: {listed(unused)}",
            "LST.ANN_TRAIN",
            advice="remove these categories from the annotation files, or annotate some objects",
        )
    for phase in range(plan.num_phases):
        if not any(c.train_images for c in plan.classes[plan.num_old(phase) : plan.num_seen(phase)]):
            yield error(
                f"phase {phase} has no training object at all",
                *_SIZES,
                advice="make the steps larger or remove its categories",
            )
    yield from _earlier_run(checkup, plan)


def _earlier_run(checkup: Checkup, plan: PhasePlan) -> Iterator[Finding]:
    """Compare the classes with those of a run in the output folder."""
    folder = checkup.run_dir
    if not (folder / PLAN_FILE).is_file():
        return
    earlier = read_plan(folder)
    same = earlier.sizes == plan.sizes and earlier.classes_hash(earlier.num_phases - 1) == plan.classes_hash(
        plan.num_phases - 1
    )
    if same:
        yield note(
            f"{folder} holds a run with the same classes and phases: the command continues it", "OUTPUT_DIR"
        )
        return
    yield error(
        f"{folder} holds a run with other classes or phases ({len(earlier.classes)} classes, sizes "
        f"{list(earlier.sizes)})",
        "OUTPUT_DIR",
        *_SIZES,
        advice="name another OUTPUT_DIR",
    )


def _validation(checkup: Checkup, train: AnnotationFile) -> Iterator[Finding]:
    """Check that validation has all training categories, by id; else labels have no ground truth."""
    source, val = checkup.annotations(TEST)[0]
    names = {c["id"]: c["name"] for c in val.categories}
    missing = [str(c["id"]) for c in train.categories if c["id"] not in names]
    if missing:
        yield error(
            f"{source.spec.ann_file} lacks {len(missing)} of the training categories: ids {listed(missing)}",
            "LST.ANN_VAL",
            advice="give both files the same list of categories",
        )
    renamed = [c for c in train.categories if names.get(c["id"], c["name"]) != c["name"]]
    if renamed:
        first = renamed[0]
        yield error(
            f"{len(renamed)} category ids have different names in the two files: id {first['id']} is "
            f"{first['name']!r} in training and {names[first['id']]!r} in validation",
            "LST.ANN_TRAIN",
            "LST.ANN_VAL",
            advice="give both files the same list of categories",
        )
    known = {c["id"] for c in train.categories}
    extra = [c["name"] for c in val.categories if c["id"] not in known]
    if extra:
        yield note(f"{len(extra)} validation categories are in no phase: {listed(extra)}", "LST.ANN_VAL")
    tested = set(val.columns.category_ids.tolist())
    untested = [c["name"] for c in train.categories if c["id"] not in tested]
    if untested:
        yield note(
            f"{len(untested)} of {len(known)} classes have no validation object and get no AP: "
            f"{listed(untested)}",
            "LST.ANN_VAL",
        )
    elif not missing:
        yield ok("every class has validation objects", "LST.ANN_VAL")
