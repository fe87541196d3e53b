"""Which pictures come when: functions of the position in the training stream, and the published samplers."""

from __future__ import annotations

from .distributed import DistributedSampler
from .files import FilePairSampler
from .grouped import GroupedBatchSampler, IterationBatchSampler, aspect_groups
from .replay import ReplayPairSampler
from .stream import ShuffledStream, StreamBatches

__all__ = [
    "DistributedSampler",
    "FilePairSampler",
    "GroupedBatchSampler",
    "IterationBatchSampler",
    "ReplayPairSampler",
    "ShuffledStream",
    "StreamBatches",
    "aspect_groups",
]
