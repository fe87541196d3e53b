"""Run-length encoded masks of many objects in one buffer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.structures.rle import PROBLEMS
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.native import load_ops

POLYGONS = -1
"""In the place of a height: the mask is polygons as JSON."""


@dataclass(eq=False)
class RleMasks:
    """N masks in COCO's compressed text. Reads like a list of dicts `{"size": [h, w], "counts": bytes}`.

    Attributes:
        text: uint8 (bytes,), the compressed counts; may hold more than the masks of this object.
        table: int64 (N, 4), begin in `text`, length, height, width of each mask. A height of POLYGONS stands
            for polygons of a result, whose text is JSON and whose image is not known yet (`rasterized`).
        areas: int64 (N,), pixels of each mask, or None when they have not been counted.
    """

    text: np.ndarray
    table: np.ndarray
    areas: np.ndarray | None = None

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
        areas = [part.areas for part in parts if part.areas is not None]
        return cls(
            np.concatenate([np.zeros(0, np.uint8), *texts]),
            np.concatenate([np.zeros((0, 4), np.int64), *tables]),
            np.concatenate(areas) if areas and len(areas) == len(parts) else None,
        )

    def select(self, indices: np.ndarray) -> RleMasks:
        """Select masks by int64 `indices`, in that order; the text is shared."""
        return RleMasks(self.text, self.table[indices], None if self.areas is None else self.areas[indices])

    def rasterized(self, sizes: np.ndarray) -> RleMasks:
        """The same masks, polygons as run lengths in images of `sizes` int64 (N, 2), height and width."""
        rows = np.flatnonzero(self.table[:, 2] == POLYGONS)
        if not len(rows):
            return self
        load_ops()
        spans = np.stack([self.table[rows, 0], self.table[rows, :2].sum(axis=1)], axis=1)
        text, table, usable = torch.ops.maskrcnn_benchmark.rle_from_records(
            torch.from_numpy(self.text), torch.from_numpy(spans), torch.from_numpy(sizes[rows])
        )
        if not usable.all():
            height, width = sizes[rows[int(usable.int().argmin())]].tolist()
            raise DataError(f"detections: polygons in an image of height {height} and width {width}")
        return self.replaced(rows, RleMasks(text.numpy(), table.numpy()))

    def replaced(self, rows: np.ndarray, masks: RleMasks) -> RleMasks:
        """The same masks with `masks` in the place of those at int64 `rows`."""
        both = RleMasks.concatenate([self, masks])
        order = np.arange(len(self))
        order[rows] = len(self) + np.arange(len(rows))
        return both.select(order)

    def packed(self) -> RleMasks:
        """The same masks with their texts end to end and no other text between them."""
        begins, lengths = self.table[:, 0], self.table[:, 1]
        ends = np.cumsum(lengths)
        table = np.column_stack([ends - lengths, self.table[:, 1:]])
        if len(table) and (table[:, 0] == begins).all() and ends[-1] == len(self.text):
            return self
        pieces = [self.text[b : b + n] for b, n in zip(begins.tolist(), lengths.tolist(), strict=True)]
        return RleMasks(np.concatenate([np.zeros(0, np.uint8), *pieces]), table, self.areas)

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
        if height == POLYGONS:
            raise DataError(f"mask {index} is made of polygons; its image is needed to encode it")
        return {"size": [height, width], "counts": self.text[begin : begin + length].tobytes()}

    def to_json(self, index: int) -> Any:
        """One mask as a result file holds it: run lengths with counts as text, or polygons."""
        if self.table[index, 2] != POLYGONS:
            rle = self[index]
            return rle | {"counts": rle["counts"].decode("ascii")}
        begin, length = self.table[index, :2].tolist()
        return json.loads(self.text[begin : begin + length].tobytes())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The masks as dicts, in order."""
        return (self[index] for index in range(len(self)))


def json_value(value: Any) -> Any:
    """What JSON holds for bytes and for numbers and arrays of numpy: the `default` of `json.dumps`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("latin-1")
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no value of JSON")
