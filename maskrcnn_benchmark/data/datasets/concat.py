"""Several data sets one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from maskrcnn_benchmark.data.datasets.coco import DetectionDataset
from maskrcnn_benchmark.data.types import Sample, SampleKey
from maskrcnn_benchmark.utils.errors import DataError


class ConcatDataset:
    """Data sets with one class list, their images counted through in the order given.

    `image_ids`, `class_names`, `label_to_category`, `keypoint_names`, `get_img_info`, `get_labels` are as in
    DetectionDataset; image ids of different parts may coincide.
    """

    def __init__(self, parts: Sequence[DetectionDataset]) -> None:
        """Join `parts`; DataError when their classes differ."""
        self.parts = list(parts)
        first = self.parts[0]
        for part in self.parts[1:]:
            if part.class_names != first.class_names:
                raise DataError(
                    f"training sets with different classes cannot be joined: {first.annotations.path} has "
                    f"{len(first.class_names) - 1}, {part.annotations.path} has {len(part.class_names) - 1}"
                )
        self.class_names = first.class_names
        if any(part.keypoint_names != first.keypoint_names for part in self.parts):
            raise DataError("training sets with different keypoints cannot be joined")
        self.keypoint_names = first.keypoint_names
        self.label_to_category = first.label_to_category
        self.image_ids = [image_id for part in self.parts for image_id in part.image_ids]
        self._ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        """Number of images of all parts."""
        return self._ends[-1]

    def get_img_info(self, index: int) -> dict[str, Any]:
        """The image record of `index`."""
        part, offset = self._locate(index)
        return part.get_img_info(index - offset)

    def get_labels(self, index: int) -> list[int]:
        """Labels of the sound annotations of `index`."""
        part, offset = self._locate(index)
        return part.get_labels(index - offset)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        """The sample of `key`, its index counted over all parts."""
        key = key if isinstance(key, SampleKey) else SampleKey(int(key))
        part, offset = self._locate(key.index)
        sample = part[key._replace(index=key.index - offset)]
        sample.index += offset
        return sample

    def _locate(self, index: int) -> tuple[DetectionDataset, int]:
        """The part that holds `index`, and the index of its first image."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of a data set of {len(self)}")
        number = bisect_right(self._ends, index)
        return self.parts[number], self._ends[number] - len(self.parts[number])
