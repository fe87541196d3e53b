"""Loaders from a config: resume, workers, shards, messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data import build
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.types import Batch, SampleKey
from maskrcnn_benchmark.utils.errors import ConfigError, DataError
from maskrcnn_benchmark.utils.files import write_json


@pytest.fixture
def cfg(raw: dict[str, Any], tmp_path: Path) -> Any:
    """Small images, random flips and sizes, the small set registered under two names."""
    for number in range(2):
        write_json(tmp_path / f"ann{number}.json", raw)
    cfg = get_cfg()
    names = [f"coco:{tmp_path}/ann{number}.json@{tmp_path}" for number in range(2)]
    cfg.merge_from_list(
        ["INPUT.MIN_SIZE_TRAIN", (24, 32, 40), "INPUT.MAX_SIZE_TRAIN", 80, "INPUT.MIN_SIZE_TEST", 32]
        + [
            "INPUT.MAX_SIZE_TEST",
            64,
            "SOLVER.IMS_PER_BATCH",
            2,
            "SOLVER.MAX_ITER",
            7,
            "TEST.IMS_PER_BATCH",
            2,
        ]
        + ["DATALOADER.NUM_WORKERS", 0, "DATASETS.TRAIN", tuple(names), "INPUT.BRIGHTNESS", 0.3]
    )
    return cfg


def same(first: Batch, second: Batch) -> bool:
    """Whether two batches hold the same numbers."""
    return (
        first.image_ids == second.image_ids
        and first.flipped == second.flipped
        and torch.equal(first.images.tensors, second.images.tensors)
        and all(torch.equal(a.bbox, b.bbox) for a, b in zip(first.targets, second.targets, strict=True))
    )


def test_resume_and_workers_give_the_same_batches(cfg: Any) -> None:
    """Batch t depends neither on the first iteration nor on the workers; the default generator rests."""
    data = build.build_train_dataset(cfg)
    assert len(data) == 6
    state = torch.get_rng_state()
    whole = list(build.build_train_loader(cfg, data))
    assert len(whole) == 7 and all(len(batch) == 2 for batch in whole)
    late = list(build.build_train_loader(cfg, data, start_iter=4))
    assert len(late) == 3 and all(same(a, b) for a, b in zip(whole[4:], late, strict=True))
    cfg.DATALOADER.NUM_WORKERS = 2
    assert all(same(a, b) for a, b in zip(whole, build.build_train_loader(cfg, data), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert {tuple(batch.flipped) for batch in whole} != {(False, False)}


def test_given_batches(cfg: Any) -> None:
    """Keys of a replay sampler come through with their class."""
    data = build.build_train_dataset(cfg)
    loader = build.build_train_loader(cfg, data, batches=[[SampleKey(0, 1, 5), SampleKey(2, 2, 6)]])
    (batch,) = list(loader)
    assert batch.query_classes == [1, 2] and batch.indices == [0, 2] and batch.image_ids == [11, 15]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_every_batch(cfg: Any, monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    """All processes together see each test image once, and in training the batches of one process."""
    cfg.SOLVER.IMS_PER_BATCH = 6
    data, tested = build.build_train_dataset(cfg), build.build_dataset(cfg, _spec(cfg), train=False)
    whole = list(build.build_train_loader(cfg, data))
    assert [batch.stream_indices for batch in whole] == [list(range(6 * t, 6 * t + 6)) for t in range(7)]
    monkeypatch.setattr(build, "get_world_size", lambda: world)
    seen, parts = [], []
    for rank in range(world):
        monkeypatch.setattr(build, "get_rank", lambda rank=rank: rank)
        seen += [i for batch in build.build_test_loader(cfg, tested) for i in batch.image_ids]
        parts.append(list(build.build_train_loader(cfg, data)))
    assert sorted(seen) == [11, 12, 13, 14, 15]
    for t, batch in enumerate(whole):
        rank_parts = [part[t] for part in parts]
        assert [i for b in rank_parts for i in b.image_ids] == batch.image_ids
        assert [d for b in rank_parts for d in b.stream_indices] == batch.stream_indices
        boxes = [target.bbox for b in rank_parts for target in b.targets]
        assert all(torch.equal(a, b.bbox) for a, b in zip(boxes, batch.targets, strict=True))
    cfg.SOLVER.IMS_PER_BATCH = 5
    with pytest.raises(ConfigError, match=rf"SOLVER\.IMS_PER_BATCH is 5; .* {world} ranks"):
        build.build_train_loader(cfg, data)


def test_images_of_a_test_batch_have_one_size(cfg: Any, raw: dict[str, Any], tmp_path: Path) -> None:
    """Padding would make what an image gives depend on the others of its batch."""
    sizes = [(50, 40), (40, 50), (50, 41), (50, 40), (100, 30), (50, 40)]
    raw["images"] = [
        {"id": i, "width": w, "height": h, "file_name": f"{w}x{h}.png"} for i, (w, h) in enumerate(sizes)
    ]
    raw["annotations"] = []
    for w, h in sizes:
        Image.new("RGB", (w, h)).save(tmp_path / f"{w}x{h}.png")
    write_json(tmp_path / "ann0.json", raw)
    cfg.TEST.IMS_PER_BATCH = 4
    data = build.build_dataset(cfg, _spec(cfg), train=False)
    for divisible, expected in ((0, [[0, 3, 5], [1], [2], [4]]), (8, [[0, 2, 3, 5], [1], [4]])):
        cfg.DATALOADER.SIZE_DIVISIBILITY = divisible
        batches = list(build.build_test_loader(cfg, data))
        assert [batch.image_ids for batch in batches] == expected
        for batch in batches:
            sides = batch.images.tensors.shape[-2:]
            step = max(1, divisible)
            assert all(-(-h // step) * step == sides[0] for h, _ in batch.images.image_sizes)
            assert all(-(-w // step) * step == sides[1] for _, w in batch.images.image_sizes)


def test_bad_image_option_reaches_the_data_set(cfg: Any, tmp_path: Path) -> None:
    """DATALOADER.BAD_IMAGE skip trains on, and the batch says which image was replaced."""
    (tmp_path / "12.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="image 12 cannot be read"):
        list(build.build_train_loader(cfg, build.build_train_dataset(cfg)))
    cfg.DATALOADER.BAD_IMAGE = "skip"
    batches = list(build.build_train_loader(cfg, build.build_train_dataset(cfg)))
    assert any(any(batch.replaced) for batch in batches) and all(12 not in b.image_ids for b in batches)


def test_nothing_to_train_on(cfg: Any, make: Callable[..., DetectionDataset]) -> None:
    """No names, or a set whose images all fall to the filter."""
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN is empty"):
        build.build_train_dataset(cfg)
    empty = make({"images": [], "annotations": [], "categories": []})
    with pytest.raises(DataError, match="no usable image"):
        build.build_train_loader(cfg, empty)


def _spec(cfg: Any) -> DatasetSpec:
    """The first training set."""
    return build.resolve_dataset(cfg, cfg.DATASETS.TRAIN[0])
