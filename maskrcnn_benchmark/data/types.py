"""Sample keys, samples and batches, as they go from sampler to data set to training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_benchmark.structures import BoxList, ImageList
from maskrcnn_benchmark.structures.geometry import AffineMap
from maskrcnn_benchmark.structures.views import View, batch_images


class SampleKey(NamedTuple):
    """Which image to load, for which class, and at which position of the training stream.

    `index` counts the images of the data set; `query_class` is the label whose objects alone are positive
    (0: all; LST, Hu et al. 2020, arXiv 2004.00900); `stream_index`, the position, seeds the random
    transforms, so that a resumed run repeats them.
    """

    index: int  # type: ignore[assignment]
    query_class: int = 0
    stream_index: int = 0


@dataclass
class Sample:
    """One image ready for the network.

    `image` is (3, h, w) float32, normalised, or with test-time augmentation a list of views; `target` has
    labels, annotation_ids and, if the annotations have them, masks and keypoints, in coordinates of `image`.
    `original_size` is the (height, width) of the image before the transforms.
    `to_input` maps coordinates of the file to `image`, with views to the first. `replaced`: the requested
    image could not be used, and this is the next one. `stream_index`: see SampleKey.
    """

    image: Tensor | list[View]
    target: BoxList
    index: int
    image_id: int
    original_size: tuple[int, int]
    query_class: int = 0
    to_input: AffineMap = field(default_factory=AffineMap)
    replaced: bool = False
    stream_index: int = 0

    @property
    def flipped(self) -> bool:
        """Whether left and right are swapped."""
        return self.to_input.scale_x < 0


@dataclass
class Batch:
    """Collated samples: padded images, and one entry per image in every list."""

    images: ImageList
    targets: list[BoxList]
    image_ids: list[int]
    indices: list[int]
    query_classes: list[int]
    flipped: list[bool]
    replaced: list[bool] = field(default_factory=list)
    stream_indices: list[int] = field(default_factory=list)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy of the batch with images and boxes on `device` (polygons stay on the CPU)."""
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            [target.to(device) for target in self.targets],
            self.image_ids,
            self.indices,
            self.query_classes,
            self.flipped,
            self.replaced,
            self.stream_indices,
        )

    def pin_memory(self) -> Batch:
        """Move the images to page-locked memory (called by the loader when a GPU is used)."""
        self.images.tensors = self.images.tensors.pin_memory()
        return self

    def __len__(self) -> int:
        """Number of images."""
        return len(self.targets)


def collate(samples: Sequence[Sample], size_divisible: int = 0) -> Batch:
    """Pad one or more `samples` to one size (multiples of `size_divisible`) and collect their fields.

    Samples of views give a ViewList in `images`.
    """
    return Batch(
        images=batch_images(
            [sample.image for sample in samples],
            size_divisible,
            [sample.original_size for sample in samples],
            maps=[sample.to_input for sample in samples],
        ),
        targets=[sample.target for sample in samples],
        image_ids=[sample.image_id for sample in samples],
        indices=[sample.index for sample in samples],
        query_classes=[sample.query_class for sample in samples],
        flipped=[sample.flipped for sample in samples],
        replaced=[sample.replaced for sample in samples],
        stream_indices=[sample.stream_index for sample in samples],
    )
