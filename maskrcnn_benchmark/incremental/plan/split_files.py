"""The published set of files: sorted ids, training and validation annotations of every phase (lst spec 2.3).

A record that is copied keeps the text it has in the source file where that is read through an index, so that
files of any size are written without decoding a segmentation.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.data.datasets.annotation_index import FileRecords
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.incremental.plan.phases import PLAN_FILE, PhasePlan
from maskrcnn_benchmark.incremental.plan.split import Annotations, group_by_class, train_file, val_file
from maskrcnn_benchmark.utils.files import atomic_path, write_json
from maskrcnn_benchmark.utils.progress import Progress

logger = logging.getLogger(__name__)
_TOGETHER = 4096  # records that are written at once


def phase_file_name(prefix: str, part: str, phase: int) -> str:
    """Published name, for example `lvis_v0.5_train_step1.json`; `part` is "train" or "val"."""
    return f"{prefix}_{part}_{'base' if phase == 0 else f'step{phase}'}.json"


def phase_folder_name(plan: PhasePlan, phase: int) -> str:
    """Folder of a phase as the release lays it out: `lvis_base_270`, `lvis_step1_160`."""
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
    """Write sorted ids, the plan (`classes.json`) and the annotations of every phase.

    Args:
        prefix: beginning of the annotation files' names, "lvis_v0.5" in the release.
        val_rule: images of the validation files, see `val_file`.
        phase_folders: annotations of a phase go to a folder of its own, see `phase_folder_name`.

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
    data = {
        part: file.outline | {"annotations": list(file.outline["annotations"])}
        for part, file in (("train", train), ("val", val))
    }
    groups = group_by_class(data["train"])
    copiers = {"train": _Copier(train), "val": _Copier(val)}
    progress = Progress(2 * plan.num_phases, "writing annotation files", logger, period_seconds=0.0)
    for phase in range(plan.num_phases):
        target = folder / phase_folder_name(plan, phase) if phase_folders else folder
        derived = {
            "train": train_file(data["train"], plan, phase, groups),
            "val": val_file(data["val"], plan, phase, val_rule),
        }
        for part, content in derived.items():
            written.append(target / phase_file_name(prefix, part, phase))
            copiers[part].write(written[-1], content)
            progress.update(extra=written[-1].name)
    return written


class _Copier:
    """Writes annotations with the full records of a source file, given by their outlines."""

    def __init__(self, source: AnnotationFile) -> None:
        self._records = source.raw["annotations"]
        self._row = {number: row for row, number in enumerate(source.columns.ids.tolist())}

    def write(self, path: Path, content: Annotations) -> None:
        """Write `content` as JSON in one step; its annotations are outlines or records of the source."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            for number, (key, value) in enumerate(content.items()):
                file.write(f"{', ' if number else '{'}{json.dumps(key)}: ".encode())
                if key != "annotations":
                    file.write(json.dumps(value).encode())
                    continue
                file.write(b"[")
                for start in range(0, len(value), _TOGETHER):
                    texts = self._texts(value[start : start + _TOGETHER])
                    file.write((b", " if start else b"") + b", ".join(texts))
                file.write(b"]")
            file.write(b"}")

    def _texts(self, annotations: list[dict[str, Any]]) -> list[bytes]:
        """JSON text of the full record of every annotation."""
        if isinstance(self._records, FileRecords):
            return self._records.texts([self._row[annotation["id"]] for annotation in annotations])
        return [json.dumps(annotation).encode() for annotation in annotations]
