"""checkpoint.checkpointer: a run resumes as if it had never stopped."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer, last_checkpoint, step_back
from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.utils.errors import CheckpointError, WriteError

CLASSES = ["__background__", "cat", "dog"]


def _parts(width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    torch.manual_seed(0)
    model = nn.Linear(4, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)


def _steps(parts: tuple, first: int, last: int) -> None:
    model, optimizer, scheduler = parts
    for i in range(first, last):
        optimizer.zero_grad()
        x = torch.rand(2, 4, generator=torch.Generator().manual_seed(i))
        model(x).pow(2).sum().backward()
        optimizer.step()
        scheduler.step()


def _checkpointer(folder: Path, parts: tuple, keep: int = 2, classes: list[str] = CLASSES) -> Checkpointer:
    return Checkpointer(folder, *parts, meta={"classes": classes, "config": "SEED: 0\n"}, keep=keep)


def test_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = _parts()
    _steps(whole, 0, 10)

    first = _parts()
    _steps(first, 0, 6)
    _checkpointer(tmp_path, first).save("model_0000006", 6, {"meters": {"loss": [1.0]}})
    second = _parts()
    resumed = _checkpointer(tmp_path, second).resume()
    assert resumed is not None
    assert (
        resumed["iteration"] == 6 and resumed["meters"] == {"loss": [1.0]} and resumed["classes"] == CLASSES
    )
    assert resumed["versions"]["torch"] == torch.__version__ and "model" not in resumed
    _steps(second, 6, 10)
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole[1].param_groups[0]["lr"] == second[1].param_groups[0]["lr"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert _checkpointer(tmp_path / "new", _parts()).resume() is None
    assert last_checkpoint(tmp_path / "new") is None


def test_folder_may_be_moved(tmp_path: Path) -> None:
    _checkpointer(tmp_path / "a", _parts()).save("model_final", 5)
    assert (tmp_path / "a" / "last_checkpoint").read_text() == "model_final.pth"
    shutil.move(tmp_path / "a", tmp_path / "b")
    resumed = _checkpointer(tmp_path / "b", _parts()).resume()
    assert resumed is not None and resumed["iteration"] == 5


def test_path_as_older_programs_wrote_it(tmp_path: Path) -> None:
    path = _checkpointer(tmp_path, _parts()).save("model_0000005", 5)
    (tmp_path / "last_checkpoint").write_text("/elsewhere/run/model_0000005.pth\n")
    assert last_checkpoint(tmp_path) == path


def test_only_the_newest_periodic_files_stay(tmp_path: Path) -> None:
    checkpointer = _checkpointer(tmp_path, _parts(), keep=2)
    for i in (1, 2, 3, 10):
        checkpointer.save(f"model_{i:07d}", i)
    checkpointer.save("model_final", 11)
    checkpointer.save("model_best", 11)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        *("model_0000003.pth", "model_0000010.pth", "model_best.pth", "model_final.pth")
    ]


def test_keep_all(tmp_path: Path) -> None:
    checkpointer = _checkpointer(tmp_path, _parts(), keep=0)
    for i in range(5):
        checkpointer.save(f"model_{i:07d}", i)
    assert len(list(tmp_path.glob("*.pth"))) == 5


def test_failing_save_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = _checkpointer(tmp_path, _parts())
    checkpointer.save("model_0000001", 1)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fails)
        with pytest.raises(WriteError, match="model_0000002.pth cannot be written: No space"):
            checkpointer.save("model_0000002", 2)
    resumed = _checkpointer(tmp_path, _parts()).resume()
    assert resumed is not None and resumed["iteration"] == 1
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def test_file_that_is_named_but_gone(tmp_path: Path) -> None:
    _checkpointer(tmp_path, _parts()).save("model_0000001", 1).unlink()
    with pytest.raises(CheckpointError, match="names 'model_0000001.pth', which does not exist; remove"):
        _checkpointer(tmp_path, _parts()).resume()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"model_0000009.pth", b"x" * 5000, b"a\x00b", b"\n\n"]
)
def test_a_note_that_names_nothing(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The newest checkpoint is taken."""
    for iteration in (1, 2):
        path = _checkpointer(tmp_path, _parts()).save(f"model_{iteration:07d}", iteration)
        os.utime(path, (iteration, iteration))
    (tmp_path / "last_checkpoint").write_bytes(content)
    caplog.clear()
    resumed = _checkpointer(tmp_path, _parts()).resume()
    assert resumed is not None and resumed["iteration"] == 2
    assert caplog.text.count("\n") == 1 and "resume from" in caplog.text and len(caplog.text) < 600
    with pytest.raises(CheckpointError, match=r"last_checkpoint .*to start the run anew"):
        last_checkpoint(tmp_path)


def test_a_folder_in_the_place_of_the_note(tmp_path: Path) -> None:
    _checkpointer(tmp_path, _parts()).save("model_0000001", 1)
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "last_checkpoint").mkdir()
    with pytest.raises(
        CheckpointError, match="last_checkpoint cannot be read; write the name of a checkpoint"
    ):
        _checkpointer(tmp_path, _parts()).resume()


def test_stepping_back_to_the_newest_periodic_checkpoint(tmp_path: Path) -> None:
    for name, iteration in (("model_0000003", 3), ("model_0000005", 5), ("model_final", 6)):
        _checkpointer(tmp_path, _parts()).save(name, iteration)
    (tmp_path / "model_final.pth").unlink()
    step_back(tmp_path)
    resumed = _checkpointer(tmp_path, _parts()).resume()
    assert resumed is not None and resumed["iteration"] == 5
    for path in tmp_path.glob("model_*.pth"):
        path.unlink()
    step_back(tmp_path)
    assert _checkpointer(tmp_path, _parts()).resume() is None


def test_damaged_file(tmp_path: Path) -> None:
    path = _checkpointer(tmp_path, _parts()).save("model_0000001", 1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"damaged, cut short.*remove .*last_checkpoint.*no older"):
        _checkpointer(tmp_path, _parts()).resume()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    weight = torch.full((3, 4), 0.25).numpy().tobytes()
    data[data.index(weight)] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut, _flip_a_byte])
@pytest.mark.parametrize("name", ["model_0000004", "model_final"])
def test_damaged_file_falls_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], name: str
) -> None:
    parts = _parts()
    nn.init.constant_(parts[0].weight, 0.25)
    checkpointer = _checkpointer(tmp_path, parts, keep=0)
    for i in (1, 2, 3):
        checkpointer.save(f"model_{i:07d}", i)
    checkpointer.save("model_0000009", 9)  # left from before the run was set back
    last = checkpointer.save(name, 4)
    damage(last)
    _cut(tmp_path / "model_0000003.pth")
    if name == "model_final":
        (tmp_path / "model_0000009.pth").unlink()
    logging.getLogger("maskrcnn_benchmark").propagate = True
    resumed = _checkpointer(tmp_path, _parts()).resume()
    assert resumed is not None and resumed["iteration"] == 2
    assert str(last) in caplog.text and "model_0000003.pth" in caplog.text
    assert "resumes from the older checkpoint" in caplog.text and "0000002" in caplog.text


def test_run_that_went_back_keeps_what_it_writes(tmp_path: Path) -> None:
    checkpointer = _checkpointer(tmp_path, _parts(), keep=1)
    checkpointer.save("model_0000009", 9)
    path = checkpointer.save("model_0000005", 5)
    assert last_checkpoint(tmp_path) == path
    checkpointer.save("model_0000009", 9)
    assert [p.name for p in tmp_path.glob("*.pth")] == ["model_0000009.pth"]


def test_other_model_classes_and_optimizer(tmp_path: Path) -> None:
    _checkpointer(tmp_path, _parts()).save("model_0000001", 1)
    with pytest.raises(
        CheckpointError, match="belongs to another model: 2 tensors differ, the first is weight"
    ):
        _checkpointer(tmp_path, _parts(width=5)).resume()
    with pytest.raises(CheckpointError, match=r"another class list \(3 names, this run has 2\)"):
        _checkpointer(tmp_path, _parts(), classes=["__background__", "dog"]).resume()
    model, _, scheduler = _parts()
    grouped = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    with pytest.raises(CheckpointError, match="optimizer state does not fit this run"):
        _checkpointer(tmp_path, (model, grouped, scheduler)).resume()


def test_weights_are_no_run(tmp_path: Path) -> None:
    model = _parts()[0]
    save_atomic({"model": model.state_dict()}, tmp_path / "a.pth")
    (tmp_path / "last_checkpoint").write_text("a.pth")
    with pytest.raises(CheckpointError, match="holds weights only, no run; give it as MODEL.WEIGHT"):
        Checkpointer(tmp_path, model).resume()


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrcnn_benchmark.checkpoint.checkpointer.is_main_process", lambda: False)
    _checkpointer(tmp_path, _parts()).save("model_0000001", 1)
    assert os.listdir(tmp_path) == []


def test_content_is_plain(tmp_path: Path) -> None:
    path = _checkpointer(tmp_path, _parts()).save("model_0000001", 1)
    data = read_checkpoint(path)
    assert {"model", "optimizer", "scheduler", "iteration", "classes", "config", "versions"} == set(data)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("iteration", "6", "iteration is '6', not a number of iterations"),
        ("iteration", -1, "iteration is -1"),
        ("iteration", 2.5, "iteration is 2.5"),
        ("iteration", torch.tensor(6), "iteration is a value of type Tensor"),
        ("optimizer", 7, "optimizer is 7, not the state of the optimizer"),
        ("scheduler", [1], "scheduler is a value of type list"),
        ("optimizer.param_groups.0.lr", math.nan, "optimizer.param_groups.0.lr is nan, not a finite number"),
        ("optimizer.param_groups.0.lr", math.inf, "optimizer.param_groups.0.lr is inf"),
        ("optimizer.param_groups.0.lr", torch.tensor(math.nan), "optimizer.param_groups.0.lr is nan"),
        ("optimizer.param_groups.0.momentum", 1j, "optimizer.param_groups.0.momentum is not real"),
        ("optimizer.state.0.momentum_buffer", torch.ones(2), r"has shape \(2,\), its parameter has \(3, 4\)"),
        ("scheduler.gamma", math.nan, "scheduler.gamma is nan"),
        ("optimizer.param_groups", 3, "optimizer state does not fit this run"),
        ("optimizer.param_groups.0.params", None, "optimizer state does not fit this run"),
        ("optimizer.state", 3, "optimizer state does not fit this run"),
    ],
)
def test_odd_values_of_a_run(tmp_path: Path, entry: str, value: object, message: str) -> None:
    parts = _parts()
    _steps(parts, 0, 2)
    path = _checkpointer(tmp_path, parts).save("model_0000002", 2)
    data = read_checkpoint(path)
    *parents, last = [int(key) if key.isdigit() else key for key in entry.split(".")]
    target: Any = data
    for key in parents:
        target = target[key]
    target[last] = value
    save_atomic(data, path)
    with pytest.raises(CheckpointError, match=message):
        _checkpointer(tmp_path, _parts()).resume()
