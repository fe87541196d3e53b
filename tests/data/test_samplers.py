"""Samplers: published orders, and streams that do not depend on where they start."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_benchmark.data.samplers import (
    DistributedSampler,
    FilePairSampler,
    GroupedBatchSampler,
    IterationBatchSampler,
    ReplayPairSampler,
    ShuffledStream,
    StreamBatches,
    aspect_groups,
)
from maskrcnn_benchmark.utils.errors import DataError

ORDER = [5, 2, 9, 0, 1, 7, 3, 8, 6, 4]
GROUPS = [0, 1, 0, 1, 1, 0, 0, 1, 0, 1]


def test_published_grouping() -> None:
    """The published batches, uneven rests kept or dropped, repeated up to the iteration asked for."""
    kept = GroupedBatchSampler(ORDER, GROUPS, 2)
    assert list(kept) == [[5, 2], [9, 1], [0, 8], [7, 3], [6], [4]] and len(kept) == 6
    dropped = GroupedBatchSampler(ORDER, GROUPS, 3, drop_uneven=True)
    assert list(dropped) == [[5, 2, 0], [9, 1, 7]]
    assert list(IterationBatchSampler(dropped, 5)) == [[5, 2, 0], [9, 1, 7]] * 2 + [[5, 2, 0]]
    resumed = IterationBatchSampler(kept, 9, start_iter=4)
    assert list(resumed) == [[5, 2], [9, 1], [0, 8], [7, 3], [6]] and len(resumed) == 5
    with pytest.raises(ValueError, match="no batches"):
        list(IterationBatchSampler(GroupedBatchSampler([], [], 2), 3))


def test_published_distributed_order() -> None:
    """Contiguous blocks, padded by the head, permutation seeded by the epoch."""
    assert list(DistributedSampler(10, 4, 3, shuffle=False)) == [9, 0, 1]
    sampler = DistributedSampler(10, 4, 0)
    assert list(sampler) == [4, 1, 7]
    sampler.set_epoch(100)
    assert list(sampler) == [0, 8, 5]
    with pytest.raises(ValueError, match="rank 4"):
        DistributedSampler(10, 4, 4)


def test_epoch_is_set_at_every_pass() -> None:
    """IterationBatchSampler hands the iteration to its sampler."""
    sampler = DistributedSampler(8, 1, 0)
    batches = list(IterationBatchSampler(GroupedBatchSampler(sampler, [0] * 8, 4), 4))
    first = batches[0] + batches[1]
    sampler.set_epoch(2)
    assert batches[2] + batches[3] == list(sampler) != first


def test_aspect_groups() -> None:
    """A square counts as portrait."""
    assert aspect_groups([0.5, 0.99, 1.0, 1.01, 2.0]) == [0, 0, 1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 23), st.integers(1, 7), st.integers(0, 5), st.integers(1, 3), st.booleans())
def test_stream_is_a_function_of_position(
    items: int, batch_size: int, start: int, world: int, grouped: bool
) -> None:
    """A late start sees the batches of an unbroken run; ranks share every batch; stream indices count up."""
    groups = [i % 3 == 0 for i in range(items)] if grouped else None
    batch_size *= world
    stream = ShuffledStream(items, 7, batch_size, groups)
    whole = [
        list(StreamBatches(stream, start_iter=0, num_iters=9, world=world, rank=r)) for r in range(world)
    ]
    together = [[key for rank in range(world) for key in whole[rank][t]] for t in range(9)]
    assert together == list(StreamBatches(stream, start_iter=0, num_iters=9))
    fresh = ShuffledStream(items, 7, batch_size, groups)
    for rank in range(world):
        late = StreamBatches(fresh, start_iter=start, num_iters=9 - start, world=world, rank=rank)
        assert list(late) == whole[rank][start:] and len(late) == 9 - start
    assert [key.stream_index for batch in together for key in batch] == list(range(9 * batch_size))


def test_stream_that_ranks_cannot_share() -> None:
    """Five images for two processes, a rank that is not there."""
    with pytest.raises(ValueError, match="rank 0 of 2 ranks with 5 images"):
        StreamBatches(ShuffledStream(9, 1, 5), start_iter=0, num_iters=1, world=2)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        StreamBatches(ShuffledStream(9, 1, 4), start_iter=0, num_iters=1, world=2, rank=2)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 13])
def test_stream_uses_every_item_equally(batch_size: int) -> None:
    """After whole epochs every item came equally often, and no batch mixes groups."""
    stream = ShuffledStream(10, 3, batch_size, GROUPS)
    batches = [stream.batch(n) for n in range(10 * batch_size // batch_size)]
    # 10 batches of size b hold 10 b draws: b epochs
    counts = Counter(key.index for batch in batches for key in batch)
    assert set(counts.values()) == {batch_size} and len(counts) == 10
    assert all(len({GROUPS[key.index] for key in batch}) == 1 for batch in batches)
    if batch_size == 1:
        assert [b[0].index for b in batches] != sorted(b[0].index for b in batches)


def test_stream_of_nothing() -> None:
    """An empty training set is a clear error; one image repeats."""
    with pytest.raises(DataError, match="no usable image"):
        ShuffledStream(0, 1, 2)
    assert [key.index for key in ShuffledStream(1, 1, 4).batch(100)] == [0, 0, 0, 0]


def replay(**changes: object) -> ReplayPairSampler:
    """Two old classes (3 and 1 pairs per epoch), new class 3 with two images."""
    settings: dict = {"seed": 5, "images_per_rank": 2, "num_iters": 30, **changes}
    return ReplayPairSampler([3, 1], [[10, 11, 12, 13], [20, 21]], [(30, 3), (31, 3)], **settings)


def test_replay_epochs_hold_the_plan() -> None:
    """Every epoch: all new pairs once, counts[k] pairs of old class k, no repeat before all images came."""
    sampler = replay()
    assert sampler.epoch_length == 6
    pairs = [sampler.pair(p) for p in range(24)]
    for epoch in range(4):
        labels = Counter(label for _, label in pairs[6 * epoch : 6 * epoch + 6])
        assert labels == {1: 3, 2: 1, 3: 2}
        assert sorted(pairs[6 * epoch : 6 * epoch + 6]) == sorted(sampler.unpermuted_epoch(epoch))
    assert Counter(image for image, label in pairs if label == 1) == dict.fromkeys((10, 11, 12, 13), 3)
    windows = [image for e in range(4) for image, label in sampler.unpermuted_epoch(e) if label == 1]
    assert windows == windows[:4] * 3
    assert pairs[:6] != sampler.unpermuted_epoch(0) or pairs[6:12] != sampler.unpermuted_epoch(1)


def test_replay_layout_over_processes_and_resume() -> None:
    """Two processes of two images see the pairs of one process of four; a late start continues."""
    single = [key for batch in replay(images_per_rank=4, num_iters=8) for key in batch]
    ranks = [list(replay(world=2, rank=r, num_iters=8)) for r in range(2)]
    assert single == [key for t in range(8) for r in range(2) for key in ranks[r][t]]
    assert list(replay(world=2, rank=1, start_iter=3, num_iters=5)) == ranks[1][3:]
    assert [key.stream_index for key in single] == list(range(32))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_replay_is_exact_for_every_number_of_processes(world: int) -> None:
    """The ranks' pairs together are the stream: an epoch has every planned pair once, whatever the world."""
    sampler = replay()
    length, per_rank = sampler.epoch_length, 2
    iterations = 7 * length  # a whole number of epochs for every batch size
    ranks = [
        list(replay(world=world, rank=r, images_per_rank=per_rank, num_iters=iterations))
        for r in range(world)
    ]
    keys = [key for t in range(iterations) for r in range(world) for key in ranks[r][t]]
    assert [key.stream_index for key in keys] == list(range(iterations * world * per_rank))
    for epoch in range(len(keys) // length):
        pairs = [(key.index, key.query_class) for key in keys[epoch * length : (epoch + 1) * length]]
        assert sorted(pairs) == sorted(sampler.unpermuted_epoch(epoch))


def test_replay_published_order() -> None:
    """Lists as given, permutations seeded by the epoch number: independent of the seed."""
    first, second = replay(published_order=True), replay(published_order=True, seed=99)
    assert first.unpermuted_epoch(1)[2:6] == [(13, 1), (10, 1), (11, 1), (21, 2)]
    assert [first.pair(p) for p in range(12)] == [second.pair(p) for p in range(12)]


def test_replay_errors() -> None:
    """A class without images, an empty plan, a rank that is not there."""
    with pytest.raises(ValueError, match="class 1 is to be replayed 2 times"):
        ReplayPairSampler([2], [[]], [(1, 2)], seed=0, images_per_rank=1, num_iters=1)
    with pytest.raises(ValueError, match="no pairs"):
        ReplayPairSampler([], [], [], seed=0, images_per_rank=1, num_iters=1)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        replay(world=2, rank=2)


def test_pairs_from_files(tmp_path: Path) -> None:
    """One list per process, read together and started over together."""
    images, classes = tmp_path / "images.json", tmp_path / "classes.json"
    images.write_text(json.dumps([[0, 1, 2], [3, 4, 5]]))
    classes.write_text(json.dumps([[1, 2, 1], [2, 2, 1]]))
    common: dict = {"num_images": 6, "num_classes": 3, "images_per_rank": 2}
    sampler = FilePairSampler(images, classes, world=2, rank=1, num_iters=2, **common)
    assert [[key[:2] for key in batch] for batch in sampler] == [[(3, 2), (4, 2)], [(5, 1), (3, 2)]]
    late = FilePairSampler(images, classes, world=2, rank=1, num_iters=1, start_iter=1, **common)
    assert list(late) == list(sampler)[1:]
    both = [[*FilePairSampler(images, classes, world=2, rank=r, num_iters=7, **common)] for r in range(2)]
    together = [first + second for first, second in zip(*both, strict=True)]
    assert list(FilePairSampler(images, classes, num_iters=7, **{**common, "images_per_rank": 4})) == together
    four = [
        [*FilePairSampler(images, classes, world=4, rank=r, num_iters=7, **{**common, "images_per_rank": 1})]
        for r in range(4)
    ]
    assert [sum((part[t] for part in four), []) for t in range(7)] == together
    with pytest.raises(DataError, match=r"2 lists .* batch of 3 images.*IMS_PER_BATCH a multiple of 2"):
        FilePairSampler(images, classes, world=3, num_iters=1, **{**common, "images_per_rank": 1})
    with pytest.raises(DataError, match=r"entry 2 is 5, expected an image index in 0\.\.4"):
        FilePairSampler(images, classes, world=2, num_iters=1, **{**common, "num_images": 5})
    classes.write_text(json.dumps([[1, 2], [2, 2, 1]]))
    with pytest.raises(DataError, match="different lengths"):
        FilePairSampler(images, classes, world=2, num_iters=1, **common)
    classes.write_text("[]")
    with pytest.raises(DataError, match="list of non-empty lists"):
        FilePairSampler(images, classes, world=2, num_iters=1, **common)
