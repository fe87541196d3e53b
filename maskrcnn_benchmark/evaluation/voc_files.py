"""Result files of Pascal VOC: a table of AP, and detections as the development kit reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.utils.files import StrPath, write_text


def write_voc_files(report: EvaluationReport, images: Iterable[Mapping[str, Any]], folder: StrPath) -> None:
    """Write `result.txt` and `Main/comp4_det_<split>_<class>.txt` into `folder`.

    images: the image records. The split is the last word of the folder's name (voc_2007_test: test).
    `result.txt` has the mean and every class's AP at IoU .5 ("-": no object). Lines of the other files are
    "image score xmin ymin xmax ymax", corners counted from 1, both inside.
    """
    target = Path(folder)
    task = report.tasks["bbox"]
    rows = [("mAP", task.metrics["AP50"])]
    rows += [(name, task.per_category[category]) for category, name in report.names.items()]
    lines = [f"{name:<16}: {value:.4f}" if value >= 0 else f"{name:<16}: -" for name, value in rows]
    write_text(target / "result.txt", "\n".join(lines) + "\n")
    names = {image["id"]: Path(image["file_name"]).stem for image in images}
    found, split = report.detections, target.name.rpartition("_")[2]
    corners = np.column_stack([found.boxes[:, :2] + 1, found.boxes[:, :2] + found.boxes[:, 2:]])
    for category, name in report.names.items():
        own = np.flatnonzero(found.category_ids == category)
        columns = (array[own].tolist() for array in (found.image_ids, found.scores, corners))
        text = [
            f"{names[image]} {score:.6f} " + " ".join(f"{side:.1f}" for side in box) + "\n"
            for image, score, box in zip(*columns, strict=True)
        ]
        write_text(target / "Main" / f"comp4_det_{split}_{name}.txt", "".join(text))
