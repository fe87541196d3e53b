"""Class-aware sampling: a class first, then one of its images (Shen et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.rng import generator


class ClassAwareStream:
    """An endless stream in which every class is drawn equally often, and every image of a class too.

    The stream is cut into rounds, one position per class that has images, in shuffled order. In round r a
    class of n images gives number r of its own stream of permutations: all n before any repeats. Nothing is
    remembered between calls.
    """

    def __init__(self, image_lists: Sequence[Sequence[int]], seed: int) -> None:
        """`image_lists[k]`: image indices of class k + 1. DataError when no class has an image."""
        self.seed = seed
        self._lists = [list(images) for images in image_lists if len(images)]
        if not self._lists:
            raise DataError("class-aware sampling needs a class with an image; check the annotations")
        self._classes = lru_cache(maxsize=2)(self._make_classes)
        # a round uses one entry per class: twice as many keep those of the round before
        self._images = lru_cache(maxsize=2 * len(self._lists))(self._make_images)

    def key(self, position: int) -> SampleKey:
        """The key at `position`; all objects of the image train (query class 0)."""
        number, place = divmod(position, len(self._lists))
        chosen = self._classes(number)[place]
        epoch, index = divmod(number, len(self._lists[chosen]))
        return SampleKey(self._images(chosen, epoch)[index], 0, position)

    def _make_classes(self, number: int) -> list[int]:
        """The order of the classes in a round."""
        return torch.randperm(
            len(self._lists), generator=generator(self.seed, "class-aware-round", number)
        ).tolist()

    def _make_images(self, chosen: int, epoch: int) -> list[int]:
        """The images of a class in the order of its pass number `epoch`."""
        images = self._lists[chosen]
        source = generator(self.seed, "class-aware-images", chosen, epoch)
        return [images[i] for i in torch.randperm(len(images), generator=source).tolist()]
