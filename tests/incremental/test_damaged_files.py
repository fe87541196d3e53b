"""Readers of the files of a run: what is damaged is one line, whatever it holds instead."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.checkpoint.checkpointer import last_checkpoint
from maskrcnn_benchmark.engine.writers import read_metrics
from maskrcnn_benchmark.incremental.distillation.json_files import import_logits
from maskrcnn_benchmark.incremental.distillation.store import (
    STORE_FILES,
    DistillHeader,
    DistillStore,
    ImageCosines,
    write_store,
)
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan, read_plan
from maskrcnn_benchmark.incremental.replay.index_files import read_index_files
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan, read_replay_plan
from maskrcnn_benchmark.incremental.reporting.class_history import read_class_history
from maskrcnn_benchmark.incremental.reporting.phase_report import category_ap, read_tasks
from maskrcnn_benchmark.incremental.reporting.summary import stored_summary
from maskrcnn_benchmark.utils.errors import UsageError

PLAN = PhasePlan(tuple(ClassInfo(i, f"c{i}", "", 9 - i, 3, 9 - i, 3) for i in range(3)), (2, 1))
REPLAY = ReplayPlan(1, [4, 9], [3, 1, 2], [2, 1, 1], 1.0, [1.0, 1.0], [1, 1], [[0, 1], [1]], [(1, 3)])
HEADER = DistillHeader(1, 2, "c", "f", (8, 8), (0, 1), "float32")
TASK = {"metrics": {"AP": 0.5}, "groups": {"b0": 0.5}, "per_category": {"0": 0.5, "1": -1}}


def _store(path: Path) -> None:
    rows = [ImageCosines(3, flip, np.array([7, 8]), np.ones((2, 3), np.float32)) for flip in (0, 1)]
    write_store(path.parent, HEADER, rows)


def _json(content: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(content))


def _state(path: Path) -> None:
    RunState(path).begin("prepare", {}, "hash")
    path.with_name("state.backup.json").unlink()


def _read_store(path: Path) -> None:
    store = DistillStore(path.parent)
    for image in store.image_ids.tolist():
        store.read(image, 0)


# file -> how it is written, how it is read
FILES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "classes.json": (_json(PLAN.to_json()), read_plan),
    "replay.json": (_json(REPLAY.to_json()), read_replay_plan),
    **{name: (_store, _read_store) for name in STORE_FILES},
    "logits.json": (
        _json([{"3": [[0.5, 0.5, 0.5]]}] * 2),
        lambda path: import_logits(path, path.parent / "store", HEADER, {3: [7]}),
    ),
    "indices.json": (_json([[1, 2]]), lambda path: read_index_files(path, path, num_images=9, num_classes=9)),
    "phase_0/report/metrics.json": (
        _json({"tasks": {"bbox": TASK}}),
        lambda path: category_ap(read_tasks(path)),
    ),
    "phase_0/report/per_class.csv": (
        lambda path: path.write_text("label,bbox_AP\n1,0.5\n2,\n"),
        lambda path: read_class_history(path.parents[2], PLAN, "bbox"),
    ),
    "summary.json": (_json({"phases": []}), lambda path: stored_summary(path.parent)),
    "metrics.jsonl": (lambda path: path.write_text('{"kind": "train", "iteration": 1}\n' * 3), read_metrics),
    "last_checkpoint": (
        lambda path: (path.write_text("model_0000001.pth"), path.with_name("model_0000001.pth").touch()),
        lambda path: last_checkpoint(path.parent),
    ),
    "state.json": (_state, RunState),
}
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(500),
    "binary": bytes(range(256)) * 4,
    "no UTF-8": b"\xff\xfe{}",
    "list": b"[1, 2]",
    "text": b'"phases"',
    "number": b"3",
    "null": b"null",
    "objects": b'{"classes": [1], "sizes": 3, "tasks": [], "phases": {}, "phase": {}, "stages": {"a": 3}}',
    "deep": b"[" * 100_000,
    "huge": b'{"sizes": [' + b"9" * 5000 + b'], "classes": [], "phase": 1}',
    "names of keys": b'{"classes": [{"name": 1}], "sizes": ["a"], "tasks": {"bbox": {"metrics": 1}}}',
    "long name": b"x" * 5000,
    "name with zero": b"model\x00.pth",
}


def _is_one_line(read: Callable[[Path], object], path: Path) -> None:
    """Read; a UsageError of one line is fine."""
    try:
        read(path)
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        assert path.name in str(error) or path.parent.name in str(error)


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path], object]]:
    """An intact file and its reader."""
    write, read = FILES[request.param]
    path = tmp_path / "run" / request.param
    path.parent.mkdir(parents=True)
    write(path)
    read(path)
    return path, read


@pytest.mark.parametrize("content", CONTENTS)
def test_other_content(file: tuple[Path, Callable[[Path], object]], content: str) -> None:
    file[0].write_bytes(CONTENTS[content])
    _is_one_line(file[1], file[0])


def test_a_folder_in_its_place(file: tuple[Path, Callable[[Path], object]]) -> None:
    file[0].unlink()
    file[0].mkdir()
    _is_one_line(file[1], file[0])


def test_random_bytes_and_ends(file: tuple[Path, Callable[[Path], object]]) -> None:
    path, read = file
    chance, whole = random.Random(0), path.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        _is_one_line(read, path)
