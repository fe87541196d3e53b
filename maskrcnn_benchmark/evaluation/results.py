"""One container for detection results: flat arrays keyed by image id, masks only ever as RLE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrcnn_benchmark.utils.errors import DataError


@dataclass
class Detections:
    """Detections of many pictures as parallel arrays of length D.

    Attributes:
        image_ids: int64 (D,), ids of the annotation file (never positions in a data set).
        category_ids: int64 (D,), ids of the annotation file (never contiguous labels).
        scores: float64 (D,).
        boxes: float64 (D, 4) as x, y, width, height in pixels of the original picture.
        rles: D compressed COCO RLE dicts (``size`` [h, w], ``counts`` bytes or str), or None without masks.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    rles: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Cast to the documented dtypes; raise DataError when lengths differ or a score is NaN."""
        self.image_ids = np.asarray(self.image_ids, np.int64).reshape(-1)
        self.category_ids = np.asarray(self.category_ids, np.int64).reshape(-1)
        self.scores = np.asarray(self.scores, np.float64).reshape(-1)
        self.boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        sizes = [len(self.image_ids), len(self.category_ids), len(self.scores), len(self.boxes)]
        if self.rles is not None:
            sizes.append(len(self.rles))
        if len(set(sizes)) != 1:
            raise DataError(
                f"detections: arrays differ in length {sizes}; give one entry per detection in each"
            )
        if np.isnan(self.scores).any():
            image = int(self.image_ids[int(np.isnan(self.scores).argmax())])
            raise DataError(
                f"detections: a score of image {image} is NaN; check that the model's losses were finite"
            )

    @classmethod
    def empty(cls, with_masks: bool = False) -> Detections:
        """No detection at all; ``with_masks`` says that later additions carry RLEs."""
        nothing = np.zeros(0)
        return cls(nothing, nothing, nothing, np.zeros((0, 4)), [] if with_masks else None)

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """All ``parts`` one after another; masks are kept only if every non-empty part has them."""
        filled = [part for part in parts if len(part)]
        if not filled:
            return cls.empty(with_masks=bool(parts) and all(part.rles is not None for part in parts))
        masks = None
        if all(part.rles is not None for part in filled):
            masks = [rle for part in filled for rle in part.rles or []]
        return cls(
            np.concatenate([part.image_ids for part in filled]),
            np.concatenate([part.category_ids for part in filled]),
            np.concatenate([part.scores for part in filled]),
            np.concatenate([part.boxes for part in filled]),
            masks,
        )

    @classmethod
    def from_json(cls, results: Iterable[dict[str, Any]]) -> Detections:
        """Read a COCO/LVIS result list: ``image_id, category_id, score, bbox`` and/or ``segmentation``.

        Without ``bbox`` the tight box of the mask is used. Raises DataError naming the entry that misses a
        key.
        """
        rows = list(results)
        boxes, rles = [], []
        for number, row in enumerate(rows):
            missing = [key for key in ("image_id", "category_id", "score") if key not in row]
            if missing or ("bbox" not in row and "segmentation" not in row):
                raise DataError(
                    f"detection {number}: missing {missing or ['bbox or segmentation']} in {sorted(row)}"
                )
            if "segmentation" in row:
                rles.append(row["segmentation"])
            boxes.append(row["bbox"] if "bbox" in row else _tight_box(row["segmentation"]))
        if rles and len(rles) != len(rows):
            raise DataError(
                f"detections: {len(rles)} of {len(rows)} entries have a segmentation; give all or none"
            )
        return cls(
            np.array([row["image_id"] for row in rows], np.int64),
            np.array([row["category_id"] for row in rows], np.int64),
            np.array([row["score"] for row in rows], np.float64),
            np.array(boxes, np.float64).reshape(-1, 4),
            rles or None,
        )

    def to_json(self) -> list[dict[str, Any]]:
        """The COCO/LVIS result list, RLE counts as text; ``from_json`` reads it back unchanged."""
        rows: list[dict[str, Any]] = []
        for index in range(len(self)):
            row: dict[str, Any] = {
                "image_id": int(self.image_ids[index]),
                "category_id": int(self.category_ids[index]),
                "bbox": self.boxes[index].tolist(),
                "score": float(self.scores[index]),
            }
            if self.rles is not None:
                rle = self.rles[index]
                counts = rle["counts"]
                text = counts.decode("ascii") if isinstance(counts, bytes) else counts
                row["segmentation"] = {"size": [int(side) for side in rle["size"]], "counts": text}
            rows.append(row)
        return rows

    def extend(self, other: Detections) -> None:
        """Append ``other`` in place."""
        both = Detections.concatenate([self, other])
        self.image_ids, self.category_ids = both.image_ids, both.category_ids
        self.scores, self.boxes, self.rles = both.scores, both.boxes, both.rles

    def select(self, index: np.ndarray) -> Detections:
        """The detections at ``index`` (bool mask (D,) or int64 positions), in that order."""
        positions = np.flatnonzero(index) if index.dtype == bool else index
        masks = None if self.rles is None else [self.rles[int(position)] for position in positions]
        return Detections(
            self.image_ids[positions],
            self.category_ids[positions],
            self.scores[positions],
            self.boxes[positions],
            masks,
        )

    def top_per_image(self, limit: int) -> Detections:
        """The ``limit`` best scores of every picture over all categories (ties: the earlier one), file
        order kept.
        """
        order = np.lexsort((-self.scores, self.image_ids))
        images = self.image_ids[order]
        starts = (
            np.flatnonzero(np.r_[True, images[1:] != images[:-1]]) if len(images) else np.zeros(0, np.int64)
        )
        lengths = np.diff(np.r_[starts, len(images)])
        rank = np.arange(len(images)) - np.repeat(starts, lengths)
        return self.select(np.sort(order[rank < limit]))

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)


def _tight_box(rle: dict[str, Any]) -> list[float]:
    """x, y, width, height of a compressed RLE."""
    from pycocotools import mask as mask_utils

    return [float(value) for value in mask_utils.toBbox(rle)]
