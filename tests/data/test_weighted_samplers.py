"""Class-aware and repeat-factor sampling: frequencies, positions, resume, processes, the config that asks."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.data.build import build_train_loader
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.samplers import (
    ClassAwareStream,
    PositionBatches,
    PositionStream,
    RepeatFactorStream,
    repeat_factors,
)
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.utils.errors import ConfigError, DataError

# Images of three classes; class 2 has none.
LISTS = [[0, 1, 2, 3, 4], [], [4, 5], [6]]
FACTORS = [1.0, 1.0, 1.5, 2.0, 3.25]


def streams() -> dict[str, PositionStream]:
    """Fresh ones."""
    return {"class_aware": ClassAwareStream(LISTS, 3), "repeat_factor": RepeatFactorStream(FACTORS, 3)}


def test_class_aware_frequencies() -> None:
    """Classes equally often in every round; all images of a class before one repeats; rounds differ."""
    stream = ClassAwareStream(LISTS, 3)
    keys = [stream.key(p) for p in range(30)]
    assert all(key.query_class == 0 and key.stream_index == p for p, key in enumerate(keys))
    # ten rounds: 5 images twice, 2 images five times, 1 image ten times; image 4 in two classes
    expected = dict.fromkeys((0, 1, 2, 3), 2) | {4: 2 + 5, 5: 5, 6: 10}
    assert Counter(key.index for key in keys) == expected
    rounds = [tuple(key.index for key in keys[i : i + 3]) for i in range(0, 30, 3)]
    assert all(6 in r and {4, 5} & set(r) for r in rounds) and len(set(rounds)) > 3
    assert [ClassAwareStream(LISTS, 4).key(p).index for p in range(30)] != [key.index for key in keys]


def test_repeat_factors_of_images() -> None:
    """sqrt(t / f), the largest over the classes of an image, never below 1; repeated objects count once."""
    labels = [[1, 1, 2], [1], [1, 3], []]
    factors = repeat_factors(labels, 0.5)
    rare = math.sqrt(0.5 / 0.25)
    assert factors == pytest.approx([rare, 1.0, rare, 1.0])
    assert repeat_factors(labels, 0.001) == [1.0] * 4
    assert repeat_factors([], 0.5) == []


def test_repeat_factor_frequencies() -> None:
    """Over many epochs every image comes as often as its factor; whole factors exactly so."""
    stream = RepeatFactorStream(FACTORS, 7)
    epochs, position, seen = 400, 0, Counter[int]()
    lengths = [int(stream._counts(e).sum()) for e in range(epochs)]
    for length in lengths:
        counts = Counter(stream.key(position + i).index for i in range(length))
        assert counts[0] == counts[1] == 1 and counts[2] in (1, 2) and counts[3] == 2 and counts[4] in (3, 4)
        position += length
        seen += counts
    assert len(set(lengths)) == 3
    assert [seen[i] / epochs for i in range(5)] == pytest.approx(FACTORS, abs=0.08)
    orders = [[stream.key(i).index for i in range(sum(lengths[:e]), sum(lengths[: e + 1]))] for e in range(5)]
    assert any(order != sorted(order) for order in orders)


@pytest.mark.parametrize("name", ["class_aware", "repeat_factor"])
def test_every_position_stands_for_itself(name: str) -> None:
    """Asked in any order, from the middle, by any number of processes: the same stream."""
    whole = [streams()[name].key(p) for p in range(96)]
    stream = streams()[name]
    assert [stream.key(p) for p in reversed(range(96))] == whole[::-1]
    for world in (1, 2, 4):
        size = 8 // world
        ranks = [
            list(PositionBatches(streams()[name], images_per_rank=size, num_iters=12, world=world, rank=r))
            for r in range(world)
        ]
        assert [key for t in range(12) for r in range(world) for key in ranks[r][t]] == whole
        late = PositionBatches(
            streams()[name], images_per_rank=size, num_iters=5, world=world, rank=world - 1, start_iter=7
        )
        assert list(late) == ranks[-1][7:] and len(late) == 5


def test_nothing_to_draw() -> None:
    """Empty sets and impossible factors are refused."""
    with pytest.raises(DataError, match="a class with an image"):
        ClassAwareStream([[], []], 0)
    with pytest.raises(DataError, match="no usable image"):
        RepeatFactorStream([], 0)
    for bad in (0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="at least 1"):
            RepeatFactorStream([1.0, bad], 0)


def dataset() -> DetectionDataset:
    """Four images: three with class 1, one of them and another with class 2."""
    boxes = [(1, 1), (2, 1), (3, 1), (3, 2), (4, 2)]
    content = {
        "images": [{"id": i, "width": 8, "height": 8, "file_name": f"{i}.png"} for i in range(1, 5)],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "jar"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": [1, 1, 5, 5], "area": 25}
            for n, (image, category) in enumerate(boxes, 1)
        ],
    }
    content["annotations"][4]["bbox"] = [1, 1, 1, 5]  # degenerate: no class of its image
    cfg = get_cfg()
    return DetectionDataset(
        AnnotationFile(content), "", transforms=build_transforms(cfg, True), train=True, keep_images="all"
    )


SMALL = ["SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 12, "DATALOADER.NUM_WORKERS", 0]


def drawn(*overrides: Any, start: int = 0) -> list[int]:
    """Indices of the batches that a configuration draws."""
    cfg = clone_with(get_cfg(), [*SMALL, *overrides])
    loader = build_train_loader(cfg, dataset(), start_iter=start)
    batches: Any = loader.batch_sampler
    return [key.index for batch in batches for key in batch]


def test_labels_of_images() -> None:
    assert [dataset().get_labels(i) for i in range(4)] == [[1], [1], [1, 2], []]


def test_the_config_names_the_sampler() -> None:
    """The published USE_CAS is class-aware sampling; a late start continues."""
    usual, aware = Counter(drawn()), drawn("DATALOADER.SAMPLER", "class_aware")
    assert set(usual.values()) == {6}
    assert Counter(aware) == {0: 4, 1: 4, 2: 4 + 12}
    assert drawn("SOLVER.USE_CAS", True) == aware
    assert drawn("SOLVER.USE_CAS", True, start=5) == aware[10:]
    often = Counter(drawn("DATALOADER.SAMPLER", "repeat_factor", "DATALOADER.REPEAT_THRESHOLD", 1.0))
    assert often[2] > often[0] > 0 and often[3] > 0
    with pytest.raises(ConfigError, match=r"SOLVER.USE_CAS means DATALOADER.SAMPLER class_aware"):
        drawn("SOLVER.USE_CAS", True, "DATALOADER.SAMPLER", "repeat_factor")
    with pytest.raises(ConfigError, match="DATALOADER.SAMPLER must be shuffle or class_aware or"):
        drawn("DATALOADER.SAMPLER", "random")
