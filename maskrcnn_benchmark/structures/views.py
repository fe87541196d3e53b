"""Several views of the same images (other sizes, mirrored) for test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list


class View(NamedTuple):
    """One view of an image: `image` (C,h,w), and whether it is mirrored left-right."""

    image: Tensor
    flipped: bool


class ViewList(ImageList):
    """The plain view of a batch of images, and `others`: further views of it, each with its mirror flag."""

    def __init__(self, plain: ImageList, others: Sequence[tuple[ImageList, bool]]) -> None:
        """Keep the views; ValueError when one has another number of images."""
        super().__init__(plain.tensors, plain.image_sizes, plain.original_sizes)
        if any(len(images) != len(plain) for images, _ in others):
            raise ValueError("every view needs the same images")
        self.others = list(others)

    def views(self) -> list[tuple[ImageList, bool]]:
        """All views with their mirror flags, the plain one first."""
        return [(ImageList(self.tensors, self.image_sizes, self.original_sizes), False), *self.others]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ViewList:
        """The same views on `device`."""
        others = [(images.to(device, non_blocking), flipped) for images, flipped in self.others]
        return ViewList(super().to(device, non_blocking), others)


def batch_images(
    images: Sequence[Tensor | Sequence[View]],
    size_divisible: int = 0,
    original_sizes: Sequence[tuple[int, int]] | None = None,
) -> ImageList:
    """Padded batch of (C,h,w) images, or a ViewList of images that are given as lists of views.

    Every view is padded by itself. The first view of an image is the plain one, and all images have the
    same views (ValueError). `original_sizes`: (height, width) of the image files, see ImageList.
    """
    if isinstance(images[0], Tensor):
        return to_image_list([p for p in images if isinstance(p, Tensor)], size_divisible, original_sizes)
    lists = [list(p) for p in images if not isinstance(p, Tensor)]
    flips = [tuple(view.flipped for view in views) for views in lists]
    if any(own != flips[0] for own in flips) or flips[0][0]:
        raise ValueError("images need the same views, the first of them plain")
    batches = [
        to_image_list([view.image for view in same], size_divisible, original_sizes)
        for same in zip(*lists, strict=True)
    ]
    return ViewList(batches[0], list(zip(batches[1:], flips[0][1:], strict=True)))
