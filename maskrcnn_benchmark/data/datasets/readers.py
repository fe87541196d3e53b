"""Readers of annotations, one per kind of data set (`config.catalog.KINDS`), all into an `AnnotationFile`."""

from __future__ import annotations

from collections.abc import Callable

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.cityscapes import load_cityscapes
from maskrcnn_benchmark.data.datasets.voc import load_voc
from maskrcnn_benchmark.utils.registry import Registry

Reader = Callable[[DatasetSpec], AnnotationFile]

READERS: Registry[Reader] = Registry("kind of data set", "data/datasets/readers.py")


def load_annotations(spec: DatasetSpec) -> AnnotationFile:
    """Read the annotations of `spec` with the reader of its kind.

    Raises DataError naming the file that is missing or wrong, and ConfigError for a kind without a reader.
    """
    return READERS.get(spec.kind)(spec)


@READERS.register("coco")
@READERS.register("lvis")
def _read_coco_or_lvis(spec: DatasetSpec) -> AnnotationFile:
    """A file in COCO layout; its content decides whether it is evaluated as COCO or as LVIS."""
    return AnnotationFile.load(spec.ann_file)


@READERS.register("voc")
def _read_voc(spec: DatasetSpec) -> AnnotationFile:
    """The XML files of a split of Pascal VOC."""
    return load_voc(spec.ann_file, spec.classes)


@READERS.register("cityscapes")
def _read_converted_cityscapes(spec: DatasetSpec) -> AnnotationFile:
    """A file in COCO layout that tools/convert_cityscapes.py wrote."""
    return AnnotationFile.load(spec.ann_file, kind="cityscapes")


@READERS.register("cityscapes_poly")
@READERS.register("cityscapes_mask")
def _read_cityscapes(spec: DatasetSpec) -> AnnotationFile:
    """The folder of a split of Cityscapes, objects as polygons or from the instance id images."""
    return load_cityscapes(spec.ann_file, spec.kind.removeprefix("cityscapes_"), spec.images)
