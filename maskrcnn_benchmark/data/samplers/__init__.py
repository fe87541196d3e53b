"""Which images come when: functions of the position in the training stream, and the published samplers."""

from __future__ import annotations

from maskrcnn_benchmark.data.samplers.class_aware import ClassAwareStream
from maskrcnn_benchmark.data.samplers.distributed import DistributedSampler
from maskrcnn_benchmark.data.samplers.files import FilePairSampler
from maskrcnn_benchmark.data.samplers.grouped import GroupedBatchSampler, IterationBatchSampler, aspect_groups
from maskrcnn_benchmark.data.samplers.positions import PositionBatches, PositionStream
from maskrcnn_benchmark.data.samplers.repeat_factor import RepeatFactorStream, repeat_factors
from maskrcnn_benchmark.data.samplers.replay import ReplayPairSampler
from maskrcnn_benchmark.data.samplers.stream import ShuffledStream, StreamBatches

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
