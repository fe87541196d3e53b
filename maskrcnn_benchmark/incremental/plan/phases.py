"""Phase plan: all classes in training order, divided into the base and the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.evaluation.groups import phase_name
from maskrcnn_benchmark.incremental.plan.run_folder import PLAN_FILE
from maskrcnn_benchmark.structures.class_list import ClassList, map_classes
from maskrcnn_benchmark.utils.errors import ConfigError, DataError
from maskrcnn_benchmark.utils.files import read_json, sha256_json


@dataclass(frozen=True)
class ClassInfo:
    """One category with its counts in the training file.

    `instance_count` and `image_count` order and bin the classes; `train_instances` and `train_images`
    count only valid (image, class) pairs and drive the replay (they differ by degenerate annotations).
    `frequency` is "r", "c", "f", or "" where the file has none.
    """

    category_id: int
    name: str
    frequency: str
    instance_count: int
    image_count: int
    train_instances: int
    train_images: int


@dataclass(frozen=True)
class PhasePlan:
    """All classes in training order and the number of classes each phase adds.

    Label of a class = 1 + its position, in every phase; 0 is the background. Phase 0 is the base. Reports
    group the classes by phase, or by `report_sizes` where it is given (see `with_report_sizes`).
    """

    classes: tuple[ClassInfo, ...]
    sizes: tuple[int, ...]
    report_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise DataError unless the sizes are positive and add up to the number of classes."""
        if sum(self.sizes) != len(self.classes) or min(self.sizes, default=0) < 1:
            raise DataError(f"phase sizes {list(self.sizes)} do not divide {len(self.classes)} classes")

    @property
    def num_phases(self) -> int:
        """Number of phases, base and steps together."""
        return len(self.sizes)

    def num_seen(self, phase: int) -> int:
        """Number of classes known after `phase` (0 for phase -1), the background not counted."""
        return sum(self.sizes[: phase + 1])

    def num_old(self, phase: int) -> int:
        """Number of classes known before `phase`."""
        return self.num_seen(phase - 1) if phase > 0 else 0

    def new_labels(self, phase: int) -> range:
        """Labels that `phase` adds."""
        return range(self.num_old(phase) + 1, self.num_seen(phase) + 1)

    def seen_ids(self, phase: int) -> list[int]:
        """Category ids known after `phase`, in label order."""
        return [c.category_id for c in self.classes[: self.num_seen(phase)]]

    def new_ids(self, phase: int) -> list[int]:
        """Category ids that `phase` adds, in label order."""
        return self.seen_ids(phase)[self.num_old(phase) :]

    def names(self, phase: int) -> list[str]:
        """Class names by label after `phase`; index 0 is the background."""
        return ["__background__", *(c.name for c in self.classes[: self.num_seen(phase)])]

    def class_list(self, source: str) -> ClassList:
        """Ids and names of all classes by label; `source`: whose they are, for messages."""
        last = self.num_phases - 1
        return ClassList(tuple(self.names(last)[1:]), tuple(self.seen_ids(last)), source)

    def with_report_sizes(self, sizes: Sequence[int]) -> PhasePlan:
        """Copy of the plan whose reports group the classes by `sizes` (LST.REPORT_SIZES; empty: by phase).

        Raises:
            ConfigError: when they do not add up to the number of classes.
        """
        if sizes and sum(sizes) != len(self.classes):
            raise ConfigError(
                f"LST.REPORT_SIZES {list(sizes)} cover {sum(sizes)} classes, but the annotations have "
                f"{len(self.classes)}; give a list that adds up to them, or () to report by phase"
            )
        return replace(self, report_sizes=tuple(sizes))

    def by_phase(self) -> PhasePlan:
        """Copy of the plan whose groups are the phases, as derived annotation files need it."""
        return replace(self, report_sizes=())

    def groups(self, phase: int) -> dict[str, list[int]]:
        """Category ids of every class group whose classes are all known after `phase`: b0, t0, t1, ..."""
        known = self.seen_ids(phase)
        sizes = self.report_sizes or self.sizes
        spans = zip(accumulate(sizes, initial=0), accumulate(sizes), strict=False)
        return {phase_name(g): known[a:b] for g, (a, b) in enumerate(spans) if b <= len(known)}

    def group_phases(self) -> dict[str, int]:
        """Phase after which each class group is complete; forgetting is measured from there."""
        phases = {name: p for p in reversed(range(self.num_phases)) for name in self.groups(p)}
        return {name: phases[name] for name in self.groups(self.num_phases - 1)}

    def group_of_category(self) -> dict[int, str]:
        """Group name of each category id; by phase, the released `step_state` with its bug corrected."""
        groups = self.groups(self.num_phases - 1)
        return {category: name for name, ids in groups.items() for category in ids}

    def check_phase(self, phase: int) -> None:
        """Raise ConfigError when there is no such phase."""
        if not 0 <= phase < self.num_phases:
            raise ConfigError(
                f"there is no phase {phase}: this plan has phases 0 (base) to {self.num_phases - 1}"
            )

    def check_step(self, phase: int) -> None:
        """Raise ConfigError unless `phase` is a step, that is a phase after the base."""
        self.check_phase(phase)
        if phase == 0:
            raise ConfigError(f"phase 0 is the base; give a step from 1 to {self.num_phases - 1}")

    def classes_hash(self, phase: int) -> str:
        """SHA-256 of the ids and names known after `phase`, to compare the classes of teacher and student."""
        return classes_hash(self.seen_ids(phase), self.names(phase)[1:])

    def to_json(self) -> dict[str, Any]:
        """Content of classes.json; the group of each class is redundant, for readers of the file."""
        group = self.by_phase().group_of_category()
        records = [
            asdict(c) | {"label": i + 1, "group": group[c.category_id]} for i, c in enumerate(self.classes)
        ]
        return {"sizes": list(self.sizes), "classes": records}

    @staticmethod
    def from_json(data: dict[str, Any]) -> PhasePlan:
        """Inverse of `to_json`."""
        names = ClassInfo.__dataclass_fields__
        classes = tuple(ClassInfo(**{k: record[k] for k in names}) for record in data["classes"])
        return PhasePlan(classes, tuple(data["sizes"]))


def check_validation_classes(plan: PhasePlan, train_path: str | Path, validation: ClassList) -> None:
    """Require every class of the plan, made from `train_path`, in the `validation` file by id and name.

    Their order does not matter, and the file may have further classes. Raises DataError with the differences.
    """
    map_classes(
        plan.class_list(str(train_path)),
        validation,
        subset=True,
        problem="the validation file has other classes than the training file",
        advice="give both the same ids and names (reports of all phases name classes by id)",
    )


def classes_hash(ids: Sequence[int], names: Sequence[str]) -> str:
    """SHA-256 of category ids and names by label, the background left out."""
    return sha256_json([list(pair) for pair in zip(ids, names, strict=True)])


def read_plan(path: str | Path) -> PhasePlan:
    """Read a plan from a file `classes.json` (of a run, or of `tools/lvis_split.py`), or a folder with one.

    Raises:
        DataError: when the file is missing or holds no plan.
    """
    file = Path(path) / PLAN_FILE if Path(path).is_dir() else Path(path)
    content = read_json(file, what="list of classes")
    try:
        return PhasePlan.from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{file} lists no classes with phases; give the {PLAN_FILE} of a run or of tools/lvis_split.py"
        ) from None


def phase_sizes(base_size: int, step_size: int | Sequence[int], num_classes: int) -> tuple[int, ...]:
    """Number of classes per phase: the base, then steps of `step_size` classes (one size, or all sizes).

    Raises:
        ConfigError: when they do not add up to `num_classes`; the message suggests a list that does.
    """
    rest = num_classes - base_size
    if base_size < 1 or rest < 0:
        raise ConfigError(
            f"LST.BASE_SIZE is {base_size}, expected 1..{num_classes} (the categories of LST.ANN_TRAIN)"
        )
    steps = [step_size] * (rest // max(1, step_size)) if isinstance(step_size, int) else list(step_size)
    if any(s < 1 for s in steps) or (isinstance(step_size, int) and step_size < 1):
        raise ConfigError(f"LST.STEP_SIZE is {step_size}, expected positive sizes")
    if sum(steps) != rest:
        missing = rest - sum(steps)
        hint = f"for example LST.STEP_SIZE {[*steps, missing]}" if missing > 0 else "make the steps smaller"
        raise ConfigError(
            f"LST.BASE_SIZE {base_size} and LST.STEP_SIZE {step_size} cover {base_size + sum(steps)} "
            f"classes, but the annotations have {num_classes}; {hint}"
        )
    return (base_size, *steps)
