"""Streams that sample images with rare classes more often: class-aware and repeat-factor sampling."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.rng import generator


class ClassAwareStream:
    """Class-aware sampling (Shen et al. 2016): an endless stream with equally many images of every class.

    The stream is cut into rounds, one position per class that has images, in shuffled order. Each class goes
    through its images in permutations: all of them come before any repeats. Every key is a function of its
    position alone.
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
        """The key at `position`, with query class 0: all objects of the image are positives."""
        round_index, slot = divmod(position, len(self._lists))
        list_index = self._classes(round_index)[slot]
        epoch, index = divmod(round_index, len(self._lists[list_index]))
        return SampleKey(self._images(list_index, epoch)[index], 0, position)

    def _make_classes(self, round_index: int) -> list[int]:
        """The order of the classes in a round."""
        return torch.randperm(
            len(self._lists), generator=generator(self.seed, "class-aware-round", round_index)
        ).tolist()

    def _make_images(self, list_index: int, epoch: int) -> list[int]:
        """The images of a class in the order of its permutation `epoch`."""
        images = self._lists[list_index]
        source = generator(self.seed, "class-aware-images", list_index, epoch)
        return [images[i] for i in torch.randperm(len(images), generator=source).tolist()]


def repeat_factors(labels: Sequence[Sequence[int]], threshold: float) -> list[float]:
    """Compute the repeat factor of every image (Gupta et al. 2019), at least 1.

    labels: classes of the objects of every image. A class in the fraction f of all images has the factor
    max(1, sqrt(threshold / f)); an image has that of its rarest class, 1 without objects.
    """
    images = Counter(label for classes in labels for label in set(classes))
    factor = {label: max(1.0, math.sqrt(threshold * len(labels) / count)) for label, count in images.items()}
    return [max((factor[label] for label in set(classes)), default=1.0) for classes in labels]


class RepeatFactorStream:
    """Repeat-factor sampling: shuffled epochs without end, image i factors[i] times in each on average.

    In every epoch a factor is rounded up with the probability of its fractional part, else down, by a
    generator of the epoch. The lengths of earlier epochs are computed when a position needs them.
    """

    def __init__(self, factors: Sequence[float], seed: int) -> None:
        """`factors`: finite, at least 1 each (else ValueError). DataError when there are none."""
        if not len(factors):
            raise DataError("the training set has no usable image; check its annotation file and class list")
        self.seed = seed
        self._factors = torch.tensor(factors, dtype=torch.float64)
        if not bool((torch.isfinite(self._factors) & (self._factors >= 1)).all()):
            raise ValueError("repeat factors must be finite and at least 1")
        self._ends: list[int] = []
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def key(self, position: int) -> SampleKey:
        """The key at `position`, with query class 0: all objects of the image are positives."""
        while not self._ends or self._ends[-1] <= position:
            length = int(self._counts(len(self._ends)).sum())
            self._ends.append(length + (self._ends[-1] if self._ends else 0))
        epoch = bisect_right(self._ends, position)
        first = self._ends[epoch - 1] if epoch else 0
        return SampleKey(self._epoch(epoch)[position - first], 0, position)

    def _counts(self, epoch: int) -> Tensor:
        """Number of times that every image comes in `epoch`, int64 (N,)."""
        source = generator(self.seed, "repeat-rounding", epoch)
        whole = self._factors.floor()
        up = torch.rand(len(self._factors), generator=source, dtype=torch.float64) < self._factors - whole
        return whole.long() + up

    def _make_epoch(self, epoch: int) -> list[int]:
        """Image indices of `epoch` in shuffled order."""
        items = torch.repeat_interleave(torch.arange(len(self._factors)), self._counts(epoch))
        order = torch.randperm(len(items), generator=generator(self.seed, "repeat-order", epoch))
        return items[order].tolist()
