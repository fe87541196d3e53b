"""A write that fails leaves what was there, removes its half file, and says in one line what to do."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer
from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import save_config
from maskrcnn_benchmark.engine.writers import METRICS_FILE, MetricsWriter, TensorboardWriter
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, ImageCosines, write_store
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.utils import files
from maskrcnn_benchmark.utils import logger as log_files
from maskrcnn_benchmark.utils.errors import WriteError
from maskrcnn_benchmark.utils.files import append_jsonl, atomic_path, write_array, write_json, write_text
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.shards import ShardExchange

Writer = Callable[[Path], object]


@contextmanager
def room(size: int) -> Iterator[None]:
    """Inside, the system refuses to let a file grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _noise(path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), dtype=np.uint8))
    with atomic_path(path) as temporary:
        image.save(temporary)


WRITERS: dict[str, Writer] = {
    "a.txt": lambda path: write_text(path, "x" * 5000),
    "a.json": lambda path: write_json(path, ["x" * 5000], indent=1),
    "config.yml": lambda path: save_config(get_cfg(), path),
    "a.pth": lambda path: save_atomic({"model": {"w": torch.zeros(5000)}, "more": torch.ones(90000)}, path),
    "a.png": _noise,
    "a.npy": lambda path: write_array(path, np.zeros(5000)),
    "small.npy": lambda path: write_array(path, np.zeros(550)),
}


@pytest.mark.parametrize("size", [0, 300, 4096])
@pytest.mark.parametrize("name", WRITERS)
def test_the_earlier_file_stays_whole(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / name
    path.write_bytes(b"earlier")
    with pytest.raises(WriteError) as raised, room(size):
        WRITERS[name](path)
    message = str(raised.value)
    assert message.startswith(f"{path} cannot be written: ") and "\n" not in message
    assert "free some space" in message and "the same command again" in message
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == [name]
    WRITERS[name](path)
    assert path.read_bytes() != b"earlier"


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_tells_only_at_the_end(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems accept data and report the missing space when it is to reach the disk."""
    path = tmp_path / name
    path.write_bytes(b"earlier")

    def full(handle: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"Disk quota exceeded.*raise the quota"):
        WRITERS[name](path)
    assert path.read_bytes() == b"earlier" and os.listdir(tmp_path) == [name]


def test_state_file(tmp_path: Path) -> None:
    state = RunState(tmp_path / "state.json")
    state.begin("prepare", {}, "hash")
    with pytest.raises(WriteError, match=r"state\.json cannot be written"), room(10):
        state.finish("prepare")
    assert not RunState(tmp_path / "state.json").finished("prepare")


def test_checkpoint_of_a_run(tmp_path: Path) -> None:
    model = torch.nn.Linear(300, 30)
    checkpointer = Checkpointer(tmp_path, model)
    checkpointer.save("model_0000001", 1)
    with pytest.raises(WriteError, match=r"model_0000002\.pth cannot be written"), room(10_000):
        checkpointer.save("model_0000002", 2)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]
    found = Checkpointer(tmp_path, torch.nn.Linear(300, 30)).resume()
    assert found is not None and found["iteration"] == 1
    # the checkpoint fits, the note that names it does not
    checkpointer.save("model_0000003", 3)
    kept = read_checkpoint(tmp_path / "model_0000003.pth")
    assert torch.equal(kept["model"]["weight"], model.weight)


@pytest.mark.parametrize(("size", "name"), [(1000, "logits.npy"), (5000, "index.npz")])
def test_distillation_store_is_complete_or_has_no_header(tmp_path: Path, size: int, name: str) -> None:
    header = DistillHeader(1, 0, "c", "f", (64, 64), (0,), "float32")
    rows = [ImageCosines(i, 0, np.arange(40) + i, np.ones((40, 1), np.float32)) for i in range(20)]
    write_store(tmp_path / "store", header, rows[:1])
    with pytest.raises(WriteError, match=rf"{name} cannot be written"), room(size):
        write_store(tmp_path / "store", header, rows)
    assert not (tmp_path / "store" / "header.json").exists()
    assert len(write_store(tmp_path / "store", header, rows)) == 20


def test_shards_of_several_processes(tmp_path: Path) -> None:
    exchange = ShardExchange(tmp_path)
    with pytest.raises(WriteError, match=r"00000_00000\.npz cannot be written"), room(500):
        exchange.write({"rows": np.ones(4000)})


def test_metrics_stop_at_once_and_a_half_line_is_cut_later(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.write("train", 1, {"loss": 0.5})
    before = (tmp_path / METRICS_FILE).read_text()
    with pytest.raises(WriteError, match=r"metrics\.jsonl cannot be written"), room(len(before) + 7):
        writer.write("train", 2, {"loss": 0.25})
    writer.close()
    assert (tmp_path / METRICS_FILE).read_text() == before + '{"kind"'
    MetricsWriter(tmp_path, 1).close()
    assert (tmp_path / METRICS_FILE).read_text() == before


def _open_full(*_: object) -> TextIO:
    return open("/dev/full", "a", encoding="utf-8")


def test_a_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real ENOSPC from the system."""
    monkeypatch.setattr(files, "open_in_place", _open_full)
    with pytest.raises(WriteError, match="No space left on device; .*free some space"):
        append_jsonl(tmp_path / METRICS_FILE, {"loss": 1.0})


def test_event_file(tmp_path: Path) -> None:
    """The writer neither hangs (its library's thread would) nor loses the error."""
    events = TensorboardWriter(tmp_path, 1)
    with pytest.raises(WriteError, match=r"events cannot be written"), room(300):
        for step in range(100):
            events.write({"loss": 1.0}, step)
    events.close()


def test_the_log_file_ends_with_one_line_and_the_run_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "open_in_place", _open_full)
    logger = setup_logger(str(tmp_path), 0)
    try:
        for number in range(3):
            logger.info("line %d", number)
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1 and "log.txt cannot be written: No space left" in printed.err
        assert [f"line {n}" in printed.out for n in range(3)] == [True] * 3
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logging.getLogger(logger.name).propagate = True


def test_a_folder_without_permission_has_its_own_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(WriteError, match="Permission denied; .*make its folder writable"):
        write_text(tmp_path / "a", "x")
    assert os.listdir(tmp_path) == []
