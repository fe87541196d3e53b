"""Several views of the same images (other sizes, flipped) for test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.geometry import AffineMap, Size
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list


class View(NamedTuple):
    """One view of an image: `image` (C, h, w), and whether it is flipped left-right."""

    image: Tensor
    flipped: bool


class ViewList(ImageList):
    """Plain view of a batch of images, and `others`: further views, whose geometry says which are flipped."""

    def __init__(self, plain: ImageList, others: Sequence[ImageList]) -> None:
        """Raises ValueError when a view has another number of images."""
        super().__init__(plain.tensors, plain.image_sizes, plain.original_sizes, maps=plain.maps)
        if any(len(images) != len(plain) for images in others):
            raise ValueError("every view needs the same images")
        self.others = list(others)

    def views(self) -> list[ImageList]:
        """All views, the plain one first."""
        plain = ImageList(self.tensors, self.image_sizes, self.original_sizes, maps=self.maps)
        return [plain, *self.others]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ViewList:
        """Copy of the views on `device`."""
        others = [images.to(device, non_blocking) for images in self.others]
        return ViewList(super().to(device, non_blocking), others)


def batch_images(
    images: Sequence[Tensor | Sequence[View]],
    size_divisible: int = 0,
    original_sizes: Sequence[Size] | None = None,
    *,
    maps: Sequence[AffineMap] | None = None,
) -> ImageList:
    """Pad images (C, h, w) to one batch, or images that are given as lists of views to a ViewList.

    Every view is padded by itself. The first view of an image is the plain one, and all images have the
    same views (ValueError). `original_sizes` and `maps`, of the plain view: see ImageList; the further views
    are resized from the original size, then flipped or not.
    """
    tensors = [image for image in images if isinstance(image, Tensor)]
    if tensors:
        return to_image_list(tensors, size_divisible, original_sizes, maps=maps)
    lists = [list(views) for views in images if not isinstance(views, Tensor)]
    flips = [tuple(view.flipped for view in views) for views in lists]
    if any(image_flips != flips[0] for image_flips in flips) or flips[0][0]:
        raise ValueError("images need the same views, the first of them plain")
    plain, *others = ([view.image for view in views] for views in zip(*lists, strict=True))
    further = []
    for view_images, flipped in zip(others, flips[0][1:], strict=True):
        sizes: list[Size] = [(image.shape[1], image.shape[2]) for image in view_images]
        pairs = zip(original_sizes or sizes, sizes, strict=True)
        view_maps = [AffineMap.of_resize(original, size, flipped=flipped) for original, size in pairs]
        further.append(to_image_list(view_images, size_divisible, original_sizes, maps=view_maps))
    return ViewList(to_image_list(plain, size_divisible, original_sizes, maps=maps), further)
