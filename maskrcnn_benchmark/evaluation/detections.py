"""Detections of many images as flat arrays keyed by image id; masks only ever as run-length text."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.result_columns import read_columns, results_text
from maskrcnn_benchmark.evaluation.rle import PROBLEMS, RleMasks
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import StrPath


@dataclass
class Detections:
    """Detections of many images as parallel arrays of length D.

    Attributes:
        image_ids: int64 (D,), ids of the annotation file (never indices of a data set).
        category_ids: int64 (D,), ids of the annotation file (never contiguous labels).
        scores: float64 (D,).
        boxes: float64 (D, 4) as x, y, width, height in pixels of the original image.
        rles: D masks, or None without masks. A list of compressed COCO RLE dicts (`size` [h, w], `counts`
            bytes or str) is accepted too, and kept as RleMasks.
        keypoints: float64 (D, K, 3) as x, y, visibility in pixels of the original image, or None.
        mask_scores: float64 (D,), scores for the evaluation of masks alone, or None where `scores` count.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    rles: RleMasks | None = None
    keypoints: np.ndarray | None = None
    mask_scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Cast to the documented dtypes; raise DataError when lengths differ or a score is NaN."""
        self.image_ids = np.asarray(self.image_ids, np.int64).reshape(-1)
        self.category_ids = np.asarray(self.category_ids, np.int64).reshape(-1)
        self.scores = np.asarray(self.scores, np.float64).reshape(-1)
        self.boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        sizes = [len(self.image_ids), len(self.category_ids), len(self.scores), len(self.boxes)]
        if isinstance(self.rles, list):
            self.rles = RleMasks.from_dicts(self.rles)
        if self.rles is not None:
            sizes.append(len(self.rles))
        if self.keypoints is not None:
            self.keypoints = np.asarray(self.keypoints, np.float64)
            sizes.append(len(self.keypoints))
        if self.mask_scores is not None:
            self.mask_scores = np.asarray(self.mask_scores, np.float64).reshape(-1)
            sizes.append(len(self.mask_scores))
        if len(set(sizes)) != 1:
            raise DataError(
                f"detections: arrays differ in length {sizes}; give one entry per detection in each"
            )
        for scores in (self.scores, self.mask_scores):
            if scores is not None and np.isnan(scores).any():
                image = int(self.image_ids[int(np.isnan(scores).argmax())])
                raise DataError(
                    f"detections: a score of image {image} is NaN; check that the model's losses were finite"
                )

    @classmethod
    def empty(cls, with_masks: bool = False) -> Detections:
        """No detection; `with_masks` gives it (no) masks, so that masks can be appended."""
        none = np.zeros(0)
        return cls(none, none, none, np.zeros((0, 4)), RleMasks.from_dicts([]) if with_masks else None)

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """Join `parts` in their order.

        Masks, keypoints and mask scores are kept only if every non-empty part has them.
        """
        filled = [part for part in parts if len(part)]
        if not filled:
            return cls.empty(with_masks=bool(parts) and all(part.rles is not None for part in parts))
        masks = None
        if all(part.rles is not None for part in filled):
            masks = RleMasks.concatenate([part.rles for part in filled if part.rles is not None])
        points = [part.keypoints for part in filled if part.keypoints is not None]
        mask_scores = [part.mask_scores for part in filled if part.mask_scores is not None]
        return cls(
            np.concatenate([part.image_ids for part in filled]),
            np.concatenate([part.category_ids for part in filled]),
            np.concatenate([part.scores for part in filled]),
            np.concatenate([part.boxes for part in filled]),
            masks,
            np.concatenate(points) if len(points) == len(filled) else None,
            np.concatenate(mask_scores) if len(mask_scores) == len(filled) else None,
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name; masks (if any) as `rle_text` and `rle_lengths` (D, 3): bytes, height, width."""
        arrays = {
            "image_ids": self.image_ids,
            "category_ids": self.category_ids,
            "scores": self.scores,
            "boxes": self.boxes,
        }
        if self.rles is not None:
            packed = self.rles.packed()
            arrays |= {"rle_text": packed.text, "rle_lengths": packed.table[:, 1:]}
        if self.keypoints is not None:
            arrays["keypoints"] = self.keypoints
        if self.mask_scores is not None:
            arrays["mask_scores"] = self.mask_scores
        return arrays

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray]) -> Detections:
        """Make detections from arrays by name: the inverse of `columns`, also for columns joined end to end.

        Masks, keypoints and mask scores are kept only if every detection has them.
        """
        lengths, masks = columns.get("rle_lengths"), None
        if lengths is not None and len(lengths) == len(columns["scores"]):
            ends = np.cumsum(lengths[:, 0])
            masks = RleMasks(columns["rle_text"], np.column_stack([ends - lengths[:, 0], lengths]))
        optional = {}
        for name in ("keypoints", "mask_scores"):
            if name in columns and len(columns[name]) == len(columns["scores"]):
                optional[name] = columns[name]
        images, categories = columns["image_ids"], columns["category_ids"]
        return cls(images, categories, columns["scores"], columns["boxes"], masks, **optional)

    @classmethod
    def from_json(cls, results: Iterable[dict[str, Any]]) -> Detections:
        """Make detections from a COCO/LVIS result list, by the reader of result files (`read`).

        Keys: `image_id, category_id, score, bbox, segmentation, keypoints`, and this package's `mask_score`.
        `bbox`, `segmentation` or `keypoints` is needed. Without `bbox` the tight box of the mask is
        used, else the rectangle around the keypoints. Raises DataError naming the entry that cannot be used.
        """
        return cls(**read_columns(results_text(list(results))))

    @classmethod
    def read(cls, path: StrPath) -> Detections:
        """Read a COCO/LVIS result file in native code, without a Python object per detection.

        Masks are compressed run lengths whose runs add up to their size, or polygons beside a `bbox`. Numbers
        are finite, ids whole and within 64 bits, keys occur once in an entry. Raises DataError naming the
        file, the entry and the byte of what is wrong.
        """
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ValueError("it is no regular file")  # a pipe would wait for ever
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                # A private copy, which is never written to: torch warns of memory that cannot be written.
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if size else bytearray()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"results {path}: cannot be read ({reason})") from error
        return cls(**read_columns(content, f"results {path}: "))

    def to_json(self) -> list[dict[str, Any]]:
        """The detections as a COCO/LVIS result list, RLE counts as text; `from_json` reads it unchanged."""
        return list(self.records())

    def records(self) -> Iterator[dict[str, Any]]:
        """Iterate over the entries of `to_json`, for lists that are too long for memory."""
        for index in range(len(self)):
            row: dict[str, Any] = {
                "image_id": int(self.image_ids[index]),
                "category_id": int(self.category_ids[index]),
                "bbox": self.boxes[index].tolist(),
                "score": float(self.scores[index]),
            }
            if self.rles is not None:
                row["segmentation"] = self.rles.to_json(index)
            if self.keypoints is not None:
                row["keypoints"] = self.keypoints[index].reshape(-1).tolist()
            if self.mask_scores is not None:
                row["mask_score"] = float(self.mask_scores[index])
            yield row

    def extend(self, other: Detections) -> None:
        """Append `other` in place."""
        both = Detections.concatenate([self, other])
        self.image_ids, self.category_ids = both.image_ids, both.category_ids
        self.scores, self.boxes, self.rles = both.scores, both.boxes, both.rles
        self.keypoints, self.mask_scores = both.keypoints, both.mask_scores

    def scored_for(self, iou_type: str) -> Detections:
        """The detections with the scores that count for a task: `mask_scores`, if any, for "segm"."""
        if self.mask_scores is None:
            return self
        return replace(self, scores=self.mask_scores if iou_type == "segm" else self.scores, mask_scores=None)

    def select(self, index: np.ndarray) -> Detections:
        """Select detections by `index`, a bool mask (D,) or int64 indices, in that order."""
        indices = np.flatnonzero(index) if index.dtype == bool else index
        masks = None if self.rles is None else self.rles.select(indices)
        return Detections(
            self.image_ids[indices],
            self.category_ids[indices],
            self.scores[indices],
            self.boxes[indices],
            masks,
            None if self.keypoints is None else self.keypoints[indices],
            None if self.mask_scores is None else self.mask_scores[indices],
        )

    def mask_areas(self) -> np.ndarray:
        """Count the pixels of every mask, float64 (D,). DataError naming the image of a malformed mask."""
        if self.rles is None:
            raise DataError("detections have no masks; give every entry a segmentation")
        if self.rles.areas is not None:
            return self.rles.areas.astype(np.float64)
        areas, _, problems = self.rles.measure()
        if problems.any():
            first = int((problems > 0).argmax())
            raise DataError(
                f"detections: a mask of image {self.image_ids[first]} is malformed "
                f"({PROBLEMS[problems[first]]}); encode it with pycocotools"
            )
        return areas.astype(np.float64)

    def areas(self, iou_type: str, area: str) -> np.ndarray:
        """Area of every detection in pixels, float64 (D,).

        The number of mask pixels for `iou_type` "segm" with `area` "mask" (if there are masks), else width *
        height of the box. Raises DataError for an `area` that is neither "box" nor "mask".
        """
        if area not in ("box", "mask"):
            raise DataError(f"area {area!r} is unknown; expected 'box' or 'mask'")
        if iou_type != "segm" or area == "box" or self.rles is None:
            return self.boxes[:, 2] * self.boxes[:, 3]
        return self.mask_areas()

    def top_per_image(self, limit: int) -> Detections:
        """Select the `limit` best-scored detections of every image over all categories.

        Of tied scores the earlier detection comes first; the order stays.
        """
        if (self.image_ids[1:] >= self.image_ids[:-1]).all() and (ranks(self.image_ids) < limit).all():
            return self  # results are usually listed by image, and few
        order = np.lexsort((-self.scores, self.image_ids))
        rank = ranks(self.image_ids[order])
        return self if (rank < limit).all() else self.select(np.sort(order[rank < limit]))

    def top_per_category(self, limit: int) -> Detections:
        """Select the `limit` best-scored detections of every category over all images.

        Of tied scores the earlier detection comes first; the order stays. Where there are mask scores, the
        best by them are selected too.
        """
        best = np.zeros(len(self), bool)
        for scores in (self.scores, self.mask_scores):
            if scores is not None:
                order = np.lexsort((-scores, self.category_ids))
                best[order[ranks(self.category_ids[order]) < limit]] = True
        return self if best.all() else self.select(best)

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)


def ranks(keys: np.ndarray) -> np.ndarray:
    """Rank of every element inside its run of equal `keys`: int64 (N,) from 0, for sorted keys (N,)."""
    if not len(keys):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
