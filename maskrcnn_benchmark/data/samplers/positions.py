"""Batches of any stream that gives the key of a position."""

from __future__ import annotations

from typing import Protocol

from maskrcnn_benchmark.data.samplers.pairs import PairBatches
from maskrcnn_benchmark.data.types import SampleKey


class PositionStream(Protocol):
    """An endless stream of keys in which every key is a function of its position alone."""

    def key(self, position: int) -> SampleKey:
        """The key at `position` (from 0); its draw is the position."""
        ...


class PositionBatches(PairBatches):
    """One process's share of the batches of a stream (layout: PairBatches.position)."""

    def __init__(
        self,
        stream: PositionStream,
        *,
        images_per_rank: int,
        num_iters: int,
        world: int = 1,
        rank: int = 0,
        start_iter: int = 0,
    ) -> None:
        """`num_iters` iterations from `start_iter`; ValueError for a rank that is not among the processes."""
        super().__init__(
            world=world,
            rank=rank,
            images_per_rank=images_per_rank,
            start_iter=start_iter,
            num_iters=num_iters,
        )
        self.stream = stream

    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key of place `slot` in the batch of `iteration`."""
        return self.stream.key(self.position(iteration, slot))
