"""Write the released set of files: sorted ids, training and validation annotations of every phase.

A record that is copied keeps its text where the source file is read through an index, so that files of any
size are written without decoding a segmentation.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.data.datasets.annotation_index import FileRecords
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, check_validation_classes
from maskrcnn_benchmark.incremental.plan.run_folder import PLAN_FILE
from maskrcnn_benchmark.incremental.plan.split import (
    Annotations,
    derive_train_annotations,
    derive_val_annotations,
    group_by_class,
)
from maskrcnn_benchmark.structures.class_list import ClassList
from maskrcnn_benchmark.utils.files import atomic_path, write_json
from maskrcnn_benchmark.utils.progress import Progress

logger = logging.getLogger(__name__)
_RECORDS_AT_ONCE = 4096


def phase_file_name(prefix: str, part: str, phase: int) -> str:
    """Released file name, for example `lvis_v0.5_train_step1.json`; `part` is "train" or "val"."""
    return f"{prefix}_{part}_{'base' if phase == 0 else f'step{phase}'}.json"


def released_folder_name(plan: PhasePlan, phase: int) -> str:
    """Folder of a phase as the release lays it out: `lvis_base_270`, `lvis_step1_160`."""
    return f"lvis_{'base' if phase == 0 else f'step{phase}'}_{plan.sizes[phase]}"


def write_split_files(
    train: AnnotationFile,
    val: AnnotationFile,
    plan: PhasePlan,
    folder: str | Path,
    prefix: str,
    *,
    val_rule: str = "positive",
    phase_folders: bool = False,
) -> list[Path]:
    """Write sorted ids, the plan (`classes.json`) and the annotations of every phase into `folder`.

    Args:
        prefix: beginning of the annotation files' names, "lvis_v0.5" in the release.
        val_rule: images of the validation files, see `derive_val_annotations`.
        phase_folders: put the annotations of each phase into a folder, see `released_folder_name`.

    Returns:
        The paths in the order of writing.

    Raises:
        DataError: when `val` lacks a class of the plan.
    """
    check_validation_classes(plan, train.path, ClassList.of_categories(val.categories, val.path))
    folder = Path(folder)
    last = plan.num_phases - 1
    contents: dict[str, Any] = {PLAN_FILE: plan.to_json(), "lvis_sorted_id_all.json": plan.seen_ids(last)}
    for phase in range(plan.num_phases):
        name = "lvis_sorted_id_base.json" if phase == 0 else f"lvis_sorted_id_step_{phase}.json"
        contents[name] = plan.seen_ids(phase)
    for name, content in contents.items():
        write_json(folder / name, content)
    written = [folder / name for name in contents]
    # each record is decoded once although several phases use it
    data = {
        part: file.outline | {"annotations": list(file.outline["annotations"])}
        for part, file in (("train", train), ("val", val))
    }
    groups = group_by_class(data["train"])
    copiers = {"train": _Copier(train), "val": _Copier(val)}
    progress = Progress(2 * plan.num_phases, "writing annotation files", logger, period_seconds=0.0)
    for phase in range(plan.num_phases):
        target = folder / released_folder_name(plan, phase) if phase_folders else folder
        derived = {
            "train": derive_train_annotations(data["train"], plan, phase, groups),
            "val": derive_val_annotations(data["val"], plan, phase, val_rule),
        }
        for part, content in derived.items():
            written.append(target / phase_file_name(prefix, part, phase))
            copiers[part].write(written[-1], content)
            progress.update(extra=written[-1].name)
    return written


class _Copier:
    """Copies full records of a source file, which outlines name, into derived files."""

    def __init__(self, source: AnnotationFile) -> None:
        self._records = source.raw["annotations"]
        self._position = {ann: i for i, ann in enumerate(source.columns.ids.tolist())}

    def write(self, path: Path, content: Annotations) -> None:
        """Write `content` as JSON atomically; its annotations are outlines or records of the source."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            for index, (key, value) in enumerate(content.items()):
                file.write(f"{', ' if index else '{'}{json.dumps(key)}: ".encode())
                if key != "annotations":
                    file.write(json.dumps(value).encode())
                    continue
                file.write(b"[")
                for start in range(0, len(value), _RECORDS_AT_ONCE):
                    texts = self._texts(value[start : start + _RECORDS_AT_ONCE])
                    file.write((b", " if start else b"") + b", ".join(texts))
                file.write(b"]")
            file.write(b"}")

    def _texts(self, annotations: list[dict[str, Any]]) -> list[bytes]:
        """JSON text of the full record of each annotation."""
        if isinstance(self._records, FileRecords):
            return self._records.texts([self._position[annotation["id"]] for annotation in annotations])
        return [json.dumps(annotation).encode() for annotation in annotations]
