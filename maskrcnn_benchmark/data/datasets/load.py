"""The annotations of a data set of any kind, in one form."""

from __future__ import annotations

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.cityscapes import load_cityscapes
from maskrcnn_benchmark.data.datasets.voc import load_voc


def load_annotations(spec: DatasetSpec) -> AnnotationFile:
    """Read the annotations that `spec` names.

    Raises DataError naming the file for what is missing or wrong, see the readers of the kinds.
    """
    if spec.kind == "voc":
        return load_voc(spec.ann_file, spec.classes)
    if spec.kind in ("cityscapes_poly", "cityscapes_mask"):
        return load_cityscapes(spec.ann_file, spec.kind.removeprefix("cityscapes_"), spec.images)
    return AnnotationFile.load(spec.ann_file, kind="cityscapes" if spec.kind == "cityscapes" else "")
