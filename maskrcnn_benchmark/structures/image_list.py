"""A padded batch of images that knows the geometry of each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.geometry import AffineMap, ImageGeometry, Size


class ImageList:
    """Batch `tensors` (B, C, H, W), zero-padded right and bottom, with what is known of every image.

    `image_sizes`: (height, width) before padding. `original_sizes`: (height, width) of the image files,
    before any resizing; equal to `image_sizes` for images that come without a file. `maps`: from coordinates
    of the file to the network input, a resize from one size to the other unless given. `geometry` joins them.
    """

    def __init__(
        self,
        tensors: Tensor,
        image_sizes: Sequence[Size],
        original_sizes: Sequence[Size] | None = None,
        *,
        maps: Sequence[AffineMap] | None = None,
    ) -> None:
        """Raises ValueError when the counts differ."""
        if tensors.dim() != 4 or tensors.shape[0] != len(image_sizes):
            raise ValueError(
                f"batch of shape {tuple(tensors.shape)} does not go with {len(image_sizes)} sizes"
            )
        self.tensors = tensors
        self.image_sizes = [(int(h), int(w)) for h, w in image_sizes]
        originals = image_sizes if original_sizes is None else original_sizes
        if len(originals) != len(image_sizes):
            raise ValueError(f"{len(originals)} original sizes do not go with {len(image_sizes)} images")
        self.original_sizes = [(int(h), int(w)) for h, w in originals]
        if maps is None:
            pairs = zip(self.original_sizes, self.image_sizes, strict=True)
            maps = [AffineMap.of_resize(original, size) for original, size in pairs]
        if len(maps) != len(image_sizes):
            raise ValueError(f"{len(maps)} maps do not go with {len(image_sizes)} images")
        self.maps = list(maps)

    @property
    def geometry(self) -> list[ImageGeometry]:
        """How each image lies in the network input."""
        padded = (self.tensors.shape[2], self.tensors.shape[3])
        parts = zip(self.image_sizes, self.original_sizes, self.maps, strict=True)
        return [ImageGeometry(size, padded, original, to_input) for size, original, to_input in parts]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ImageList:
        """Copy of the batch on `device`."""
        tensors = self.tensors.to(device, non_blocking=non_blocking)
        return ImageList(tensors, self.image_sizes, self.original_sizes, maps=self.maps)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_sizes)


def to_image_list(
    images: Sequence[Tensor] | Tensor | ImageList,
    size_divisible: int = 0,
    original_sizes: Sequence[Size] | None = None,
    *,
    maps: Sequence[AffineMap] | None = None,
) -> ImageList:
    """Pad images (C, h, w) to the largest height and width, rounded up to multiples of `size_divisible`.

    A (B, C, H, W) or (C, H, W) tensor is one batch of images without padding; an ImageList is returned as it
    is. `original_sizes` and `maps`: see ImageList.
    Padding comes after mean subtraction, so zero stands for the mean colour. Raises ValueError for an empty
    list or images whose channels or types differ.
    """
    if isinstance(images, ImageList):
        return images
    if isinstance(images, Tensor):
        images = list(images.unbind(0)) if images.dim() == 4 else [images]
    if not images:
        raise ValueError("a batch needs at least one image")
    kinds = {(img.dim(), img.shape[0], img.dtype) for img in images}
    if len(kinds) != 1 or images[0].dim() != 3:
        shapes = [tuple(img.shape) for img in images]
        raise ValueError(f"images of a batch must be (C,h,w) with equal C and type, got {shapes}")
    sizes = [(img.shape[1], img.shape[2]) for img in images]
    height, width = (_round_up(max(side), size_divisible) for side in zip(*sizes, strict=True))
    if len(images) == 1 and sizes[0] == (height, width):
        return ImageList(images[0][None], sizes, original_sizes, maps=maps)
    batch = images[0].new_zeros((len(images), images[0].shape[0], height, width))
    for slot, img in zip(batch, images, strict=True):
        slot[:, : img.shape[1], : img.shape[2]].copy_(img)
    return ImageList(batch, sizes, original_sizes, maps=maps)


def _round_up(value: int, multiple: int) -> int:
    """`value` rounded up to a multiple of `multiple` (unchanged for 0)."""
    return math.ceil(value / multiple) * multiple if multiple > 0 else value
