"""Samplers: batches as functions of the position in the training stream, and those of maskrcnn-benchmark."""

from __future__ import annotations

from maskrcnn_benchmark.data.samplers.balanced import ClassAwareStream, RepeatFactorStream, repeat_factors
from maskrcnn_benchmark.data.samplers.batches import PositionBatches, PositionStream
from maskrcnn_benchmark.data.samplers.published import (
    DistributedSampler,
    GroupedBatchSampler,
    IterationBatchSampler,
    aspect_groups,
)
from maskrcnn_benchmark.data.samplers.replay import FilePairSampler, ReplayPairSampler
from maskrcnn_benchmark.data.samplers.shuffled import ShuffledStream, StreamBatches

__all__ = [
    "ClassAwareStream",
    "DistributedSampler",
    "FilePairSampler",
    "GroupedBatchSampler",
    "IterationBatchSampler",
    "PositionBatches",
    "PositionStream",
    "RepeatFactorStream",
    "ReplayPairSampler",
    "ShuffledStream",
    "StreamBatches",
    "aspect_groups",
    "repeat_factors",
]
