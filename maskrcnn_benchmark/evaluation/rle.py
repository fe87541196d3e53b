"""Run-length encoded masks of many objects in one buffer, and how annotations become such masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.structures.polygons import MAX_COORDINATE, read_polygons
from maskrcnn_benchmark.structures.rle import PROBLEMS, read_rle, rle_from_polygons
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.native import load_ops


@dataclass(eq=False)
class RleMasks:
    """N masks in COCO's compressed text. Reads like a list of dicts `{"size": [h, w], "counts": bytes}`.

    Attributes:
        text: uint8 (bytes,), the compressed counts; may hold more than the masks of this object.
        table: int64 (N, 4), begin in `text`, length, height, width of each mask.
    """

    text: np.ndarray
    table: np.ndarray

    @classmethod
    def from_dicts(cls, rles: Iterable[Mapping[str, Any]]) -> RleMasks:
        """Make masks from compressed RLE dicts (`counts` bytes or str). DataError naming the faulty one."""
        parts: list[bytes] = []
        rows: list[tuple[int, int, int, int]] = []
        begin = 0
        for index, rle in enumerate(rles):
            try:
                counts, (height, width) = rle["counts"], rle["size"]
                part = counts.encode("ascii") if isinstance(counts, str) else bytes(memoryview(counts))
                rows.append((begin, len(part), int(height), int(width)))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"mask {index}: expected a compressed RLE with size [h, w] and counts as text, "
                    f"got {str(rle)[:80]}"
                ) from error
            parts.append(part)
            begin += len(part)
        text = np.frombuffer(bytearray(b"".join(parts)), np.uint8)
        return cls(text, np.array(rows, np.int64).reshape(-1, 4))

    @classmethod
    def concatenate(cls, parts: Sequence[RleMasks]) -> RleMasks:
        """Join `parts` in their order."""
        shifts = np.cumsum([0, *(len(part.text) for part in parts)])
        tables = [part.table + [shift, 0, 0, 0] for part, shift in zip(parts, shifts, strict=False)]
        texts = [part.text for part in parts]
        return cls(
            np.concatenate([np.zeros(0, np.uint8), *texts]),
            np.concatenate([np.zeros((0, 4), np.int64), *tables]),
        )

    def select(self, indices: np.ndarray) -> RleMasks:
        """Select masks by int64 `indices`, in that order; the text is shared."""
        return RleMasks(self.text, self.table[indices])

    def packed(self) -> RleMasks:
        """The same masks with their texts end to end and no other text between them."""
        begins, lengths = self.table[:, 0], self.table[:, 1]
        ends = np.cumsum(lengths)
        table = np.column_stack([ends - lengths, self.table[:, 1:]])
        if len(table) and (table[:, 0] == begins).all() and ends[-1] == len(self.text):
            return self
        pieces = [self.text[b : b + n] for b, n in zip(begins.tolist(), lengths.tolist(), strict=True)]
        return RleMasks(np.concatenate([np.zeros(0, np.uint8), *pieces]), table)

    @property
    def sizes(self) -> np.ndarray:
        """int64 (N, 2): height and width of each mask."""
        return self.table[:, 2:]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`text` uint8 (bytes,) and `table` int64 (N, 4) as the native operations take them."""
        return torch.from_numpy(self.text), torch.from_numpy(np.ascontiguousarray(self.table))

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Measure all masks.

        Returns areas int64 (N,), tight boxes x, y, width, height int64 (N, 4), all in pixels, and problems
        uint8 (N,), indices into PROBLEMS. A mask with a problem has area 0.
        """
        load_ops()
        areas, boxes, problems = torch.ops.maskrcnn_benchmark.rle_measure(*self.tensors())
        return areas.numpy(), boxes.numpy(), problems.numpy()

    def problem(self, index: int) -> str:
        """The problem of one mask in words; empty if it is valid."""
        return PROBLEMS[int(self.select(np.array([index])).measure()[2][0])]

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One mask as a dict for pycocotools."""
        begin, length, height, width = self.table[index].tolist()
        return {"size": [height, width], "counts": self.text[begin : begin + length].tobytes()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The masks as dicts, in order."""
        return (self[index] for index in range(len(self)))


def annotation_masks(annotations: Sequence[Mapping[str, Any]], sizes: np.ndarray) -> RleMasks:
    """Encode the masks of annotations (polygons, uncompressed or compressed RLE) as pycocotools does.

    `sizes` int64 (N, 2): height and width of each annotation's image. Raises DataError naming the
    annotation whose segmentation is unreadable.
    """
    polygonal = np.array([_is_polygons(a.get("segmentation")) for a in annotations], bool)
    polygonal &= (sizes > 0).all(1)
    shapes, others = np.flatnonzero(polygonal).tolist(), np.flatnonzero(~polygonal).tolist()
    polygons = _rasterize([annotations[i] for i in shapes], sizes[shapes])
    if not len(others):
        return polygons
    encoded = [_annotation_rle(annotations[i], *sizes[i].tolist()) for i in others]
    both = RleMasks.concatenate([polygons, RleMasks.from_dicts(encoded)])
    return both.select(np.argsort(shapes + others))


def _is_polygons(shape: Any) -> bool:
    """Whether these are polygons of three points or more, or none (pycocotools reads others differently)."""
    return isinstance(shape, list) and all(
        isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 for part in shape
    )


def _rasterize(annotations: Sequence[Mapping[str, Any]], sizes: np.ndarray) -> RleMasks:
    """Masks of annotations with polygons; sizes int64 (N, 2). DataError naming the unreadable one."""
    shapes: list[list[list[float]]] = [annotation["segmentation"] for annotation in annotations]
    lengths = [len(part) // 2 for shape in shapes for part in shape]
    load_ops()
    try:
        coordinates = np.fromiter(
            chain.from_iterable(chain.from_iterable(shapes)), np.float64, count=2 * sum(lengths)
        )
        if not (np.abs(coordinates) <= MAX_COORDINATE).all():
            raise ValueError("coordinates beyond any image")
        columns = (
            coordinates.reshape(-1, 2),
            np.cumsum([0, *lengths]),
            np.cumsum([0, *(len(shape) for shape in shapes)]),
            np.ascontiguousarray(sizes, np.int64),
        )
        text, table = torch.ops.maskrcnn_benchmark.rle_from_polygons(*map(torch.from_numpy, columns))
    except (TypeError, ValueError, OverflowError):
        for annotation, (height, width) in zip(annotations, sizes.tolist(), strict=True):
            _annotation_rle(annotation, height, width)  # raises for the one that is wrong
        raise
    return RleMasks(text.numpy(), table.numpy())


def _annotation_rle(annotation: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of one annotation. Raises DataError naming it."""
    shape = annotation.get("segmentation")
    try:
        if isinstance(shape, list):
            return rle_from_polygons(read_polygons(shape, (width, height), torch.float64), height, width)
        if isinstance(shape, Mapping) and isinstance(shape.get("counts"), list):
            return read_rle(shape)
    except ValueError as error:
        raise DataError(
            f"annotation {annotation.get('id', '?')}: unreadable segmentation ({error})"
        ) from error
    if isinstance(shape, Mapping) and isinstance(shape.get("counts"), str | bytes) and "size" in shape:
        return dict(shape)
    raise DataError(
        f"annotation {annotation.get('id', '?')}: segmentation is {type(shape).__name__}, "
        "expected polygons or an RLE; evaluate boxes only or repair the file"
    )
