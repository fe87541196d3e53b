"""Which pictures come when: functions of the position in the training stream, and the published samplers."""

from __future__ import annotations

from .class_aware import ClassAwareStream
from .distributed import DistributedSampler
from .files import FilePairSampler
from .grouped import GroupedBatchSampler, IterationBatchSampler, aspect_groups
from .positions import PositionBatches, PositionStream
from .repeat_factor import RepeatFactorStream, repeat_factors
from .replay import ReplayPairSampler
from .stream import ShuffledStream, StreamBatches

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
