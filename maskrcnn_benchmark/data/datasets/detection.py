"""The data set of one annotation file, whatever its kind, and several of them joined."""

from __future__ import annotations

import copy
import logging
import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile, Record
from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.data.datasets.images import ImageReader
from maskrcnn_benchmark.data.datasets.keypoints import (
    check_keypoints,
    flipped_order,
    keypoint_names,
    read_keypoints,
)
from maskrcnn_benchmark.data.records.columns import AnnotationColumns
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.data.types import Sample, SampleKey
from maskrcnn_benchmark.structures import BoxList, Keypoints, SegmentationMask
from maskrcnn_benchmark.structures.class_list import BACKGROUND, ClassList, map_classes
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.rng import derive_seed

logger = logging.getLogger(__name__)
DIFFERENT = "training sets with different classes cannot be joined"


class DetectionDataset:
    """Images with boxes, masks and keypoints: a map from a SampleKey (or an index) to a Sample.

    The label of a category is 1 + its index in `category_order`; annotations of other categories are ignored.

    Attributes: `annotations`, `img_dir`, `images` (reader of the image files), `image_ids` (ascending, by
    index), `label_to_category` and `class_names` (both with an entry for background at 0), `has_masks`,
    `keypoint_names` (empty unless keypoints are read).
    """

    def __init__(
        self,
        annotations: AnnotationFile,
        img_dir: str,
        *,
        transforms: Compose,
        train: bool,
        category_order: Sequence[int] | None = None,
        keep_images: str = "valid",
        sort_by_label: bool = False,
        drop_crowd: bool = True,
        seed: int = 0,
        bad_image: str = "error",
        min_keypoints: int | None = None,
        image_options: ImageOptions | None = None,
    ) -> None:
        """Index the images.

        Args:
            category_order: category ids by label; None takes all categories in file order.
            keep_images: "all", or "valid" for those with an annotation (of `category_order`, no crowd) whose
                box has both sides above one pixel.
            sort_by_label: objects of an image by (label, file order) instead of file order.
            drop_crowd: leave crowds out of the targets. seed: of the random transforms.
            bad_image: "error", or "skip" to replace an image that cannot be read by the next usable one (only
                when `train`: a test set never replaces an image).
            min_keypoints: None reads no keypoints; a number reads them, and "valid" images then have so many
                labelled ones in their used annotations.
            image_options: how image files become RGB.

        Raises DataError for unknown categories in `category_order`, keypoints that cannot be used and a
        training set without annotations, and ValueError for unknown options.
        """
        if keep_images not in ("valid", "all") or bad_image not in ("error", "skip"):
            raise ValueError(f"keep_images={keep_images!r} or bad_image={bad_image!r} is not a known option")
        if train and annotations.unlabelled:
            raise DataError(
                f'{annotations.path or "the annotations"}: a file without "annotations" can be predicted on, '
                "not trained on; name a training file with annotations"
            )
        self.annotations = annotations
        self.img_dir = img_dir
        self.images = ImageReader(img_dir, image_options)
        self.transforms = transforms
        self.seed = seed
        self.replaced_count = 0
        self._replace_bad = train and bad_image == "skip"
        self._sort_by_label = sort_by_label
        order = list(annotations.category_ids if category_order is None else category_order)
        self._set_labels(order)
        columns = annotations.columns
        # per annotation: whether it becomes a target, and whether it is valid for training
        self._is_used = np.isin(columns.category_ids, order) & ~(columns.crowd & drop_crowd)
        self._is_valid = self._is_used & ~columns.degenerate()
        kept = set(columns.image_ids[self._is_valid].tolist())
        self.keypoint_names: list[str] = []
        if min_keypoints is not None:
            self.keypoint_names = keypoint_names(annotations, order)
            kept &= _images_with_keypoints(columns, self._is_used, min_keypoints)
        self._images = [im for im in annotations.images if keep_images == "all" or im["id"] in kept]
        self.image_ids = [image["id"] for image in self._images]
        self.has_masks = self._check_masks()

    def _set_labels(self, order: list[int]) -> None:
        """Give the categories `order` the labels 1, 2, ..."""
        self.label_to_category = [0, *order]
        self.class_names = [BACKGROUND, *_category_names(self.annotations, order)]
        self._label_of = {category: label for label, category in enumerate(order, start=1)}

    @property
    def class_list(self) -> ClassList:
        """Ids and names by label."""
        source = self.annotations.path or "the annotations"
        return ClassList(tuple(map(str, self.class_names[1:])), tuple(self.label_to_category[1:]), source)

    def relabelled(self, order: Sequence[int]) -> DetectionDataset:
        """The same data set with other labels: its category ids in the order of them."""
        if set(order) != set(self.label_to_category[1:]):
            raise ValueError(f"{list(order)[:5]}... are not the categories of {self.annotations.path}")
        other = copy.copy(self)
        other._set_labels(list(order))
        return other

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def get_img_info(self, index: int) -> Record:
        """The image record (id, width, height, ...) of `index`."""
        return self._images[index]

    def get_labels(self, index: int) -> list[int]:
        """Labels of the valid annotations (both box sides above one pixel) of `index`, in file order."""
        rows = self.annotations.anns_by_image.rows(self.image_ids[index])
        categories = self.annotations.columns.category_ids[rows[self._is_valid[rows]]]
        return [self._label_of[category] for category in categories.tolist()]

    def __getitem__(self, key: SampleKey | int) -> Sample:
        """Read one image, make its target and transform both.

        With a `query_class` the target holds an object of that class: where clipping has removed it, the next
        image with the class is used. Raises IndexError for an index out of range, DataError for a bad image.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(int(key))
        if not 0 <= key.index < len(self):
            raise IndexError(f"image {key.index} of a data set of {len(self)}")
        index = key.index
        for _ in range(len(self)):
            sample, reason = self._try(key._replace(index=index))
            if sample is not None:
                sample.replaced = index != key.index
                return sample
            self.replaced_count += 1
            logger.warning("%s; taking the next image (%d replaced so far)", reason, self.replaced_count)
            index = self._next_index(index, key.query_class)
        raise DataError(f"no image of {self.annotations.path or self.img_dir} can be used in place of {key}")

    def _try(self, key: SampleKey) -> tuple[Sample | None, str]:
        """The sample of `key`, or None and the reason why another image must be used."""
        record = self._images[key.index]
        try:
            image = self.images.read(record)
        except DataError as error:
            if not self._replace_bad:
                raise
            return None, str(error)
        target = self.target(key.index)
        if key.query_class and not bool((target.get_field("labels") == key.query_class).any()):
            name = self.class_names[key.query_class]
            return None, f"image {record['id']} has no usable object of class {key.query_class} ({name})"
        rng = random.Random(derive_seed(self.seed, "transform", key.stream_index))
        tensor, changed, to_input = self.transforms(image, target, rng)
        sample = Sample(
            image=tensor,
            target=changed,
            index=key.index,
            image_id=record["id"],
            original_size=(image.height, image.width),
            query_class=key.query_class,
            to_input=to_input,
            stream_index=key.stream_index,
        )
        return sample, ""

    def target(self, index: int) -> BoxList:
        """The target of image `index` before any transform.

        Boxes (N, 4) xyxy in pixels, clipped to the image, empty ones removed, with the fields labels (N,),
        annotation_ids (N,), and masks and keypoints where the data set has them.
        """
        record = self._images[index]
        size = (record["width"], record["height"])
        anns = self._used(record["id"])
        if self._sort_by_label:
            anns = sorted(anns, key=lambda ann: self._label_of[ann["category_id"]])
        boxes = torch.tensor([ann["bbox"] for ann in anns], dtype=torch.float32).reshape(-1, 4)
        target = BoxList(boxes, size, "xywh").convert("xyxy")
        labels = [self._label_of[ann["category_id"]] for ann in anns]
        target.add_field("labels", torch.tensor(labels, dtype=torch.int64))
        target.add_field("annotation_ids", torch.tensor([ann["id"] for ann in anns], dtype=torch.int64))
        if self.has_masks:
            target.add_field("masks", self._masks(anns, size))
        if self.keypoint_names:
            points = read_keypoints(anns, len(self.keypoint_names), self.annotations.path)
            target.add_field("keypoints", Keypoints(points, size, flipped_order(self.keypoint_names)))
        return target.clip_to_image(remove_empty=True)

    def check_keypoints(self) -> None:
        """Raise DataError for a used annotation whose number of keypoints is not that of the classes."""
        if self.keypoint_names:
            rows = np.flatnonzero(self._is_used & (self.annotations.columns.visible >= 0))
            check_keypoints(self.annotations, rows, len(self.keypoint_names))

    def _masks(self, anns: list[Record], size: tuple[int, int]) -> SegmentationMask:
        """Masks of `anns`; DataError naming the annotation when one does not fit the image."""
        masks = SegmentationMask([], size)
        for ann in anns:
            try:
                masks = SegmentationMask.cat([masks, SegmentationMask([ann["segmentation"]], size)])
            except ValueError as error:
                raise DataError(
                    f"annotation file {self.annotations.path}: the segmentation of annotation {ann['id']} "
                    f"(image {ann['image_id']}) cannot be used: {error}; correct or remove it"
                ) from None
        return masks

    def _used(self, image_id: int) -> list[Record]:
        """Annotations of an image that become targets, in file order."""
        rows = self.annotations.anns_by_image.rows(image_id)
        return self.annotations.anns_by_image.take(rows[self._is_used[rows]])

    def _next_index(self, index: int, query_class: int) -> int:
        """The next image, cyclic; with a class the next that has a valid annotation of it."""
        for step in range(1, len(self)):
            candidate = (index + step) % len(self)
            if not query_class or query_class in self.get_labels(candidate):
                return candidate
        return index

    def _check_masks(self) -> bool:
        """Whether the annotations have masks; DataError when only some have."""
        columns = self.annotations.columns
        counted = self._is_used & np.isin(columns.image_ids, self.image_ids)
        has_masks = bool((counted & columns.masked).any())
        missing = np.flatnonzero(counted & ~columns.masked)
        if has_masks and len(missing):
            raise DataError(
                f"{self.annotations.path}: annotation {columns.ids[missing[0]]} has no segmentation although "
                "others have; add it (an empty list stands for no mask) or remove the annotation"
            )
        return has_masks


def _images_with_keypoints(columns: AnnotationColumns, used: np.ndarray, min_count: int) -> set[int]:
    """Ids of the images whose `used` annotations have at least `min_count` labelled keypoints together."""
    rows = used & (columns.visible > 0)
    images, index = np.unique(columns.image_ids[rows], return_inverse=True)
    counts = np.bincount(index, weights=columns.visible[rows], minlength=len(images))
    return (
        set(columns.image_ids[used].tolist()) if min_count <= 0 else set(images[counts >= min_count].tolist())
    )


def _category_names(annotations: AnnotationFile, order: list[int]) -> list[str]:
    """Names of the categories `order`; DataError for unknown or repeated ids."""
    by_id = {category["id"]: category["name"] for category in annotations.categories}
    unknown = [category for category in order if category not in by_id]
    if unknown or len(set(order)) != len(order):
        raise DataError(
            f"category order for {annotations.path or 'the annotations'}: ids {unknown[:5]} are unknown"
            if unknown
            else f"category order for {annotations.path or 'the annotations'} names a category twice"
        )
    return [by_id[category] for category in order]


class ConcatDataset:
    """Data sets of the same classes, their images counted through in the order given.

    Labels are those of the first part, to which the classes of the others are mapped. `image_ids`,
    `class_names`, `class_list`, `label_to_category`, `keypoint_names`, `get_img_info`, `get_labels` are as in
    DetectionDataset; image ids of different parts may coincide.
    """

    def __init__(self, parts: Sequence[DetectionDataset]) -> None:
        """Join `parts`; DataError when their classes differ (see `structures.class_list`)."""
        first = parts[0]
        self.parts = [first]
        for part in parts[1:]:
            order = map_classes(first.class_list, part.class_list, problem=DIFFERENT)
            self.parts.append(part.relabelled(order))
        self.class_names = first.class_names
        self.class_list = first.class_list
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
        """Labels of the valid annotations of `index`."""
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
        """The part that has image `index`, and the index of its first image."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of a data set of {len(self)}")
        i = bisect_right(self._ends, index)
        return self.parts[i], self._ends[i] - len(self.parts[i])
