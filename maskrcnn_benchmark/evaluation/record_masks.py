"""Masks of annotation records that stay JSON text until native code rasterises them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.data.datasets.annotation_index import FileRecords
from maskrcnn_benchmark.data.records.content import Picked
from maskrcnn_benchmark.evaluation.rle import RleMasks, json_value
from maskrcnn_benchmark.structures.polygons import read_polygons
from maskrcnn_benchmark.structures.rle import read_rle, rle_from_polygons
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.native import load_ops


@dataclass(eq=False)
class RecordMasks:
    """The segmentations of G annotation records, whose images have a size.

    Attributes: text: uint8 (bytes,), JSON that holds the records, perhaps a whole file mapped into memory.
    spans: int64 (G, 2), begin and end of each record. sizes: int64 (G, 2), height and width of its image.
    annotations: the records, for messages.
    """

    text: np.ndarray
    spans: np.ndarray
    sizes: np.ndarray
    annotations: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, annotations: Sequence[Mapping[str, Any]], sizes: np.ndarray) -> RecordMasks:
        """The masks of `annotations`; sizes int64 (G, 2). Records of an indexed file are not decoded."""
        sizes = np.ascontiguousarray(sizes, np.int64)
        if isinstance(annotations, Picked) and isinstance(annotations.records, FileRecords):
            return cls(*annotations.records.spans(annotations.rows), sizes, annotations)
        texts = [_to_json(annotation) for annotation in annotations]
        ends = np.cumsum([0, *map(len, texts)])
        text = np.frombuffer(bytearray(b"".join(texts)), np.uint8)
        return cls(text, np.stack([ends[:-1], ends[1:]], axis=1), sizes, annotations)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`text`, `spans` and `sizes` as the native operations take them."""
        return torch.from_numpy(self.text), torch.from_numpy(self.spans), torch.from_numpy(self.sizes)

    def encode(self) -> RleMasks:
        """All masks as compressed run lengths. Raises DataError naming the annotation that has none."""
        load_ops()
        text, table, usable = torch.ops.maskrcnn_benchmark.rle_from_records(*self.tensors())
        masks = RleMasks(text.numpy(), table.numpy())
        others = np.flatnonzero(~usable.numpy())
        if not len(others):
            return masks
        encoded = [_by_rule(self.annotations[row], *self.sizes[row].tolist()) for row in others.tolist()]
        return masks.replaced(others, RleMasks.from_dicts(encoded))

    def unusable(self, row: int) -> DataError:
        """The error of a record without a mask that can be used."""
        annotation = self.annotations[row]
        try:
            _by_rule(annotation, *self.sizes[row].tolist())
        except DataError as error:
            return error
        return _error(annotation, "it is not as it was checked")


def annotation_masks(annotations: Sequence[Mapping[str, Any]], sizes: np.ndarray) -> RleMasks:
    """Encode the masks of annotations (polygons, run lengths as text or list) as pycocotools does.

    `sizes` int64 (N, 2): height and width of each annotation's image. Polygons of fewer than three points do
    not count. Raises DataError naming the annotation whose segmentation is unreadable.
    """
    return RecordMasks.of(annotations, sizes).encode()


def _by_rule(annotation: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """Compressed run lengths of an annotation that native code left to the rules. DataError naming it."""
    shape = annotation.get("segmentation")
    try:
        if isinstance(shape, list):
            return rle_from_polygons(read_polygons(shape, (width, height), torch.float64), height, width)
        if isinstance(shape, Mapping):
            return read_rle(shape)
    except ValueError as error:
        raise _error(annotation, str(error)) from error
    raise DataError(
        f"annotation {annotation.get('id', '?')}: segmentation is {type(shape).__name__}, "
        "expected polygons or an RLE; evaluate boxes only or repair the file"
    )


def _error(annotation: Mapping[str, Any], problem: str) -> DataError:
    return DataError(f"annotation {annotation.get('id', '?')}: unreadable segmentation ({problem})")


def _to_json(annotation: Mapping[str, Any]) -> bytes:
    """The segmentation of a record as JSON."""
    shape = annotation.get("segmentation")
    try:
        return json.dumps({"segmentation": shape}, default=json_value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"annotation {annotation.get('id', '?')}: unreadable segmentation ({error})"
        ) from None
