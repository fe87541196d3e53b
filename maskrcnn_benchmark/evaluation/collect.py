"""Collecting the detections of a test: one entry per image, over all ranks, in bounded memory."""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.utils.comm import get_world_size, on_main
from maskrcnn_benchmark.utils.files import StrPath
from maskrcnn_benchmark.utils.shards import Merged, ShardExchange

SHARD_DETECTIONS = 100_000
"""Detections in memory from which on a rank writes a shard, or drops those that cannot count any more."""


class DetectionCollector:
    """Detections of the images that the ranks test, joined on rank 0 by `gather`.

    Each rank adds its images, some ranks perhaps none. An image counts once: on one rank the first entry, of
    several ranks that of the lowest. With several ranks every one must call `reset` and `gather`.

    Args:
        shard_folder: where ranks exchange their detections, seen by all of them; not used by a single rank.
        max_per_category: keep only so many of the best detections of every category over all images of the
            rank (AP-fixed). At most about twice as many are held at a time. None keeps all; a rank of
            several then writes them to disk on the way.
        with_masks: whether detections carry masks, for the result without any detection.
    """

    def __init__(
        self,
        *,
        shard_folder: StrPath | None = None,
        max_per_category: int | None = None,
        with_masks: bool = False,
    ) -> None:
        self._shard_folder = shard_folder
        self._max_per_category = max_per_category
        self._with_masks = with_masks
        self._exchange: ShardExchange | None = None
        self._clear()

    def _clear(self) -> None:
        self._parts: list[Detections] = []
        self._count = self._count_after_pruning = 0
        self._seen: dict[int, None] = {}  # image ids in the order in which they were added
        self._seen_written = 0

    def __len__(self) -> int:
        """Number of detections in memory."""
        return self._count

    def __contains__(self, image_id: int) -> bool:
        """Whether this rank has added the image."""
        return image_id in self._seen

    def reset(self) -> None:
        """Drop everything; ValueError when there are several ranks but no `shard_folder`."""
        self._clear()
        if get_world_size() > 1:
            self._exchange = self._open_exchange()

    def _open_exchange(self) -> ShardExchange:
        if self._shard_folder is None:
            raise ValueError("several ranks need a shard_folder to exchange their detections")
        return ShardExchange(self._shard_folder)

    def add(self, image_id: int, detections: Detections) -> None:
        """Add all detections of one image; an image that was added before is ignored."""
        if image_id in self._seen:
            return
        self._seen[image_id] = None
        self._parts.append(detections)
        self._count += len(detections)

    def limit_memory(self) -> None:
        """Prune or write what is in memory, if it is much; called after every batch."""
        if self._max_per_category is not None:
            if self._count >= max(SHARD_DETECTIONS, 2 * self._count_after_pruning):
                best = Detections.concatenate(self._parts).top_per_category(self._max_per_category)
                self._parts, self._count, self._count_after_pruning = [best], len(best), len(best)
        elif self._exchange is not None and self._count >= SHARD_DETECTIONS:
            self._write_shard(self._exchange)

    def _write_shard(self, exchange: ShardExchange) -> None:
        """Write the detections in memory, and the ids of the images added since the last shard."""
        seen = np.fromiter(self._seen, np.int64, len(self._seen))[self._seen_written :]
        exchange.write({**Detections.concatenate(self._parts).columns(), "seen": seen})
        self._parts, self._count, self._seen_written = [], 0, len(self._seen)

    def gather(self) -> Detections | None:
        """Join the detections of all ranks on rank 0, sorted by image id; None on the other ranks.

        The order inside an image is that of `add`, so the result does not depend on the number of ranks.
        Raises DataError on every rank when a shard cannot be read.
        """
        if get_world_size() == 1:
            return self._sorted(Detections.concatenate(self._parts))
        exchange = self._exchange or self._open_exchange()
        self._write_shard(exchange)
        merged = exchange.merge()
        self._exchange = None
        gathered: list[Detections] = []

        def join() -> None:
            assert merged is not None
            gathered.append(self._sorted(_drop_repeated_images(merged)))

        on_main(join)
        return gathered[0] if gathered else None

    def _sorted(self, detections: Detections) -> Detections:
        """The detections by ascending image id, those of an image in their order."""
        if not len(detections):
            return Detections.empty(with_masks=self._with_masks)
        return detections.select(np.argsort(detections.image_ids, kind="stable"))


def _drop_repeated_images(merged: Merged) -> Detections:
    """The detections of all ranks without those of images that a lower rank has added too."""
    detections = Detections.from_columns(merged.columns)
    seen = merged.columns["seen"]
    images, first = np.unique(seen, return_index=True)
    if len(images) == len(seen):
        return detections
    rank_of_image = merged.rank_of_rows("seen")[first][np.searchsorted(images, detections.image_ids)]
    return detections.select(rank_of_image == merged.rank_of_rows("scores"))
