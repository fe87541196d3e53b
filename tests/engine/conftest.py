"""A model of a few numbers and a stream of batches that exercise the training loop without images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.config.defaults import get_cfg


@dataclass
class FakeBatch:
    """The attributes of data.types.Batch that the loop reads."""

    images: Tensor
    image_ids: list[int]
    targets: list[None] = field(default_factory=list)
    query_classes: list[int] = field(default_factory=list)
    stream_indices: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def to(self, device: torch.device) -> FakeBatch:
        """The same batch on `device`."""
        return FakeBatch(
            self.images.to(device),
            self.image_ids,
            self.targets,
            self.query_classes,
            self.stream_indices,
            self.indices,
        )


class FakeModel(nn.Module):
    """Two losses of two layers; dropout makes them depend on torch's default generator."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.second = nn.Linear(8, 2)
        self.calls: list[Any] = []

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """Losses of a ModelInput whose images are a batch (B, 3)."""
        self.calls.append(inputs)
        hidden = torch.nn.functional.dropout(self.first(inputs.images).relu(), 0.5)
        out = self.second(hidden)
        return {"loss_a": (out[:, 0] - 1).square().mean(), "loss_b": out[:, 1].abs().mean()}


def fake_stream(start: int, rank: int = 0, world: int = 1, *, bad: int = -1) -> Iterator[FakeBatch]:
    """Endless batches of two images made from their slot number alone; slot `bad` holds a NaN."""
    number = start
    while True:
        slot = number * world + rank
        images = torch.randn(2, 3, generator=torch.Generator().manual_seed(slot))
        if slot == bad:
            images[0, 0] = torch.nan
        yield FakeBatch(images, [2 * slot, 2 * slot + 1], [None, None], [0, 0], [2 * slot, 2 * slot + 1])
        number += 1


def make_cfg(**solver: object) -> CfgNode:
    """Defaults with a short, fast schedule on the CPU."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.WARMUP_ITERS = 2
    cfg.SOLVER.STEPS = (8,)
    cfg.SOLVER.LOG_PERIOD = 2
    cfg.SOLVER.CHECKPOINT_PERIOD = 0
    cfg.SOLVER.merge_from_list([item for pair in solver.items() for item in pair])
    cfg.freeze()
    return cfg


def make_model() -> FakeModel:
    """The fake model, always with the same weights."""
    torch.manual_seed(5)
    return FakeModel()


@pytest.fixture
def fake() -> dict[str, Callable]:
    """Builders of the fakes by name."""
    return {"cfg": make_cfg, "model": make_model, "stream": fake_stream}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small run fastest, and independently of other work on the machine, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
