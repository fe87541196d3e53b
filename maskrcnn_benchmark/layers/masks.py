"""Masks between boxes and images: pasting predictions, rasterising training targets (He et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import torch
from torch import Tensor
from torch.nn import functional

from maskrcnn_benchmark.utils.native import load_ops, register_op

UNBOUNDED = 2**31 - 1


def paste_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5, padding: int = 1
) -> Tensor:
    """Bool (N, height, width): each probability mask resized into its box and compared with `threshold`.

    masks: (N, M, M) floating; boxes: (N, 4) xyxy in pixels of the image. A mask gets `padding` zero pixels on
    each side, its box grows in proportion and is cut to whole pixels toward zero, bilinear resizing, then
    `> threshold`. Boxes outside the image, and with a NaN, give an empty mask. Raises ValueError (shapes,
    devices, ranges) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.paste_masks(masks, boxes, height, width, float(threshold), padding)


def image_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """Convert predicted masks to bool (N, height, width) in an image of that size.

    masks: floating (N, 1, M, M), probabilities inside the boxes (N, 4) xyxy, which are pasted; or bool
    (N, 1, h, w) of the whole image, which stay as they are or, at another size, are resized and kept where
    half or more of a pixel is inside. Raises ValueError for another shape and TypeError for another dtype.
    """
    if masks.dim() != 4 or masks.shape[1] != 1:
        raise ValueError(f"masks of a prediction must be (N,1,h,w), got {tuple(masks.shape)}")
    if masks.is_floating_point():
        return paste_masks(masks[:, 0].float(), boxes.float(), height, width, threshold)
    if masks.dtype != torch.bool:
        raise TypeError(f"masks of a prediction must be probabilities or bool, got {masks.dtype}")
    if tuple(masks.shape[2:]) == (height, width):
        return masks[:, 0]
    if not len(masks):
        return masks.new_zeros((0, height, width))
    resized = functional.interpolate(
        masks.float(), size=(height, width), mode="bilinear", align_corners=False
    )
    return resized[:, 0] >= 0.5


def polygon_mask_targets(
    polygons: Sequence[Sequence[Tensor]],
    instance_of_box: Tensor,
    boxes: Tensor,
    size: int,
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """Mask targets (R, size, size) bool: the polygons of an instance, cropped by a box, resized, rasterised.

    polygons: per instance a list of (2k,) tensors x1, y1, x2, y2, ...; those with fewer than three points
    have no pixels. instance_of_box: (R,) int64; boxes: (R, 4) xyxy. image_size (width, height) clamps the
    corner x1, y1, not the side that is scaled (parity: as published); leave it out for boxes inside the
    image. The pixels are those of pycocotools. Raises ValueError (shapes, indices), TypeError (dtypes).
    """
    load_ops()
    flat = list(chain.from_iterable(polygons))
    coords = torch.cat(flat).reshape(-1, 2) if flat else torch.zeros((0, 2))
    points = torch.tensor([0, *accumulate(len(polygon) // 2 for polygon in flat)])
    instances = torch.tensor([0, *accumulate(len(instance) for instance in polygons)])
    width, height = image_size if image_size is not None else (UNBOUNDED, UNBOUNDED)
    device = boxes.device
    return torch.ops.maskrcnn_benchmark.rasterize_polygons(
        coords.to(device, torch.float64),
        points.to(device),
        instances.to(device),
        instance_of_box.to(device),
        boxes,
        int(width),
        int(height),
        size,
    )


def _paste_masks_fake(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float, padding: int
) -> Tensor:
    return masks.new_empty((masks.shape[0], height, width), dtype=torch.bool)


def _rasterize_polygons_fake(
    coords: Tensor,
    polygon_offsets: Tensor,
    instance_offsets: Tensor,
    instance_of_box: Tensor,
    boxes: Tensor,
    image_w: int,
    image_h: int,
    size: int,
) -> Tensor:
    return boxes.new_empty((boxes.shape[0], size, size), dtype=torch.bool)


register_op("paste_masks", fake=_paste_masks_fake)
register_op("rasterize_polygons", fake=_rasterize_polygons_fake)
