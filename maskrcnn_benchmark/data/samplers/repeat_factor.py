"""Repeat-factor sampling: images with rare classes come more often (Gupta et al. 2019, LVIS)."""

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


def repeat_factors(labels: Sequence[Sequence[int]], threshold: float) -> list[float]:
    """Repeat factor of every image, at least 1.

    labels: classes of the objects of every image. A class in the share f of all images has the factor
    max(1, sqrt(threshold / f)); an image has that of its rarest class, without objects 1.
    """
    images = Counter(label for classes in labels for label in set(classes))
    factor = {label: max(1.0, math.sqrt(threshold * len(labels) / count)) for label, count in images.items()}
    return [max((factor[label] for label in set(classes)), default=1.0) for classes in labels]


class RepeatFactorStream:
    """An endless stream of shuffled epochs; image i comes factors[i] times per epoch on average.

    In every epoch a factor is rounded up with the probability of its fraction, else down, by a generator of
    the epoch. Lengths of earlier epochs are worked out when a position is asked for.
    """

    def __init__(self, factors: Sequence[float], seed: int) -> None:
        """`factors`: finite, at least 1 each. DataError when there are none, ValueError for others."""
        if not len(factors):
            raise DataError("the training set has no usable image; check its annotation file and class list")
        self.seed = seed
        self._factors = torch.tensor(factors, dtype=torch.float64)
        if not bool((torch.isfinite(self._factors) & (self._factors >= 1)).all()):
            raise ValueError("repeat factors must be finite and at least 1")
        self._ends: list[int] = []
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def key(self, position: int) -> SampleKey:
        """The key at `position`; all objects of the image train (query class 0)."""
        while not self._ends or self._ends[-1] <= position:
            length = int(self._counts(len(self._ends)).sum())
            self._ends.append(length + (self._ends[-1] if self._ends else 0))
        epoch = bisect_right(self._ends, position)
        first = self._ends[epoch - 1] if epoch else 0
        return SampleKey(self._epoch(epoch)[position - first], 0, position)

    def _counts(self, epoch: int) -> Tensor:
        """How often every image comes in `epoch`, int64."""
        source = generator(self.seed, "repeat-rounding", epoch)
        whole = self._factors.floor()
        up = torch.rand(len(self._factors), generator=source, dtype=torch.float64) < self._factors - whole
        return whole.long() + up

    def _make_epoch(self, epoch: int) -> list[int]:
        """Image indices of `epoch` in the order they are drawn."""
        items = torch.repeat_interleave(torch.arange(len(self._factors)), self._counts(epoch))
        order = torch.randperm(len(items), generator=generator(self.seed, "repeat-order", epoch))
        return items[order].tolist()
