"""The published set of files: sorted ids, training and validation annotations of every phase (lst spec 2.3).

A record that is copied keeps the text it has in the source file where that is read through an index, so that
files of any size are written without decoding a segmentation.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.data.datasets.annotation_index import FileRecords
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.incremental.phases import PLAN_FILE, PhasePlan
from maskrcnn_benchmark.incremental.split import Annotations, train_file, val_file
from maskrcnn_benchmark.utils.files import atomic_path, write_json
from maskrcnn_benchmark.utils.progress import Progress

logger = logging.getLogger(__name__)
_TOGETHER = 4096  # records that are written at once


def phase_file_name(prefix: str, part: str, phase: int) -> str:
    """Published name, for example ``lvis_v0.5_train_step1.json``; ``part`` is "train" or "val"."""
    return f"{prefix}_{part}_{'base' if phase == 0 else f'step{phase}'}.json"


def phase_folder_name(plan: PhasePlan, phase: int) -> str:
    """Folder of a phase as the release lays it out: ``lvis_base_270``, ``lvis_step1_160``."""
    return f"lvis_{'base' if phase == 0 else f'step{phase}'}_{plan.sizes[phase]}"


def export_files(
    train: AnnotationFile,
    val: AnnotationFile,
    plan: PhasePlan,
    folder: str | Path,
    prefix: str,
    *,
    val_rule: str = "positive",
    phase_folders: bool = False,
) -> list[Path]:
    """Write sorted ids, the plan (``classes.json``) and the annotations of every phase.

    Args:
        prefix: beginning of the annotation files' names, "lvis_v0.5" in the release.
        val_rule: pictures of the validation files, see ``val_file``.
        phase_folders: annotations of a phase go to a folder of its own, see ``phase_folder_name``.

    Returns:
        The paths in writing order.
    """
    folder = Path(folder)
    last = plan.num_phases - 1
    contents: dict[str, Any] = {PLAN_FILE: plan.to_json(), "lvis_sorted_id_all.json": plan.seen_ids(last)}
    for phase in range(plan.num_phases):
        name = "lvis_sorted_id_base.json" if phase == 0 else f"lvis_sorted_id_step_{phase}.json"
        contents[name] = plan.seen_ids(phase)
    for name, content in contents.items():
        write_json(folder / name, content)
    written = [folder / name for name in contents]
    # every record is used several times: made once
    sources = {
        part: file.outline | {"annotations": list(file.outline["annotations"])}
        for part, file in (("train", train), ("val", val))
    }
    progress = Progress(2 * plan.num_phases, "writing annotation files", logger, period_seconds=0.0)
    for phase in range(plan.num_phases):
        target = folder / phase_folder_name(plan, phase) if phase_folders else folder
        derived = {
            "train": train_file(sources["train"], plan, phase),
            "val": val_file(sources["val"], plan, phase, val_rule),
        }
        for part, source in (("train", train), ("val", val)):
            written.append(target / phase_file_name(prefix, part, phase))
            write_derived(written[-1], derived[part], source)
            progress.update(extra=written[-1].name)
    return written


def write_derived(path: str | Path, content: Annotations, source: AnnotationFile) -> None:
    """Write ``content``, whose annotations are records or outlines of ``source``, with the full records."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for number, (key, value) in enumerate(content.items()):
            file.write(f"{', ' if number else '{'}{json.dumps(key)}: ")
            if key != "annotations":
                file.write(json.dumps(value))
                continue
            texts = _texts(value, source)
            file.write("[")
            for start in range(0, len(value), _TOGETHER):
                file.write((", " if start else "") + ", ".join(islice(texts, _TOGETHER)))
            file.write("]")
        file.write("}")


def _texts(annotations: list[dict[str, Any]], source: AnnotationFile) -> Iterator[str]:
    """JSON text of the full record of every annotation, by id."""
    records = source.raw["annotations"]
    if not isinstance(records, FileRecords):
        return (json.dumps(annotation) for annotation in annotations)
    row = {number: i for i, number in enumerate(source.columns.ids.tolist())}
    return (records.text(row[annotation["id"]]).decode("utf-8") for annotation in annotations)
