"""Data and geometry without learning: boxes, padded image batches, masks, keypoints."""

from __future__ import annotations

from maskrcnn_benchmark.structures.boxlist import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.boxlist_ops import box_iou, boxlist_iou, cat_boxlist, remove_small_boxes
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.structures.masks import SegmentationMask

__all__ = [
    "FLIP_LEFT_RIGHT",
    "FLIP_TOP_BOTTOM",
    "BoxList",
    "ImageList",
    "Keypoints",
    "SegmentationMask",
    "box_iou",
    "boxlist_iou",
    "cat_boxlist",
    "remove_small_boxes",
    "to_image_list",
]
