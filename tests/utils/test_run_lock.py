"""One run at a time in a folder; leftovers of a killed one are removed."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

from maskrcnn_benchmark.utils.errors import ConfigError, UsageError, WriteError
from maskrcnn_benchmark.utils.files import TEMPORARY, remove_leftovers
from maskrcnn_benchmark.utils.run_lock import LOCK_FILE, lock_run_folder


def _hold(folder: Path, workers: int = 0) -> int:
    """Start a process that holds `folder` until it is killed; its workers are forked while it does."""
    pid = os.fork()
    if pid == 0:
        with lock_run_folder(folder):
            for _ in range(workers):
                if os.fork() == 0:
                    (folder / "worker").write_text(str(os.getpid()))
                    time.sleep(600)
                    os._exit(0)
                while not (folder / "worker").exists() or not (folder / "worker").read_text():
                    time.sleep(0.01)
            (folder / "held").touch()
            time.sleep(600)
        os._exit(0)
    while not (folder / "held").exists():
        time.sleep(0.01)
    return pid


def test_two_runs_cannot_share_a_folder_but_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    other = _hold(tmp_path / "run")
    try:
        with (
            pytest.raises(
                ConfigError, match=rf"run is in use by process {other} on .*choose another OUTPUT_DIR"
            ),
            lock_run_folder(tmp_path / "run"),
        ):
            pytest.fail("the folder is taken")
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with lock_run_folder(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_workers_of_a_killed_run_do_not_hold_its_lock(tmp_path: Path) -> None:
    other = _hold(tmp_path, workers=1)
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    worker = int((tmp_path / "worker").read_text())
    try:
        with lock_run_folder(tmp_path):
            os.kill(worker, 0)  # it is alive
    finally:
        os.kill(worker, signal.SIGKILL)


def test_the_same_process_cannot_claim_twice(tmp_path: Path) -> None:
    with (
        lock_run_folder(tmp_path),
        pytest.raises(ConfigError, match=f"by process {os.getpid()} on"),
        lock_run_folder(tmp_path),
    ):
        pytest.fail("the folder is taken")


def test_a_disk_without_locks_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_run_folder(tmp_path):
        assert "do not start two runs there" in caplog.text


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(WriteError, match="Read-only file system"), lock_run_folder(tmp_path):
        pytest.fail("the folder cannot be locked")


def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="inside"), lock_run_folder(tmp_path):
            raise UsageError("inside")
    assert os.listdir(tmp_path) == []


def test_leftovers_are_removed_where_they_can_be(tmp_path: Path) -> None:
    for name in ("a", "phase_1/report", "phase_1/deep/er", "pictures"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f".x{TEMPORARY}12345678.json").touch()
        (tmp_path / name / "x.json").touch()
    (tmp_path / f".model{TEMPORARY}12345678.pth").write_text("half")
    shards = tmp_path / "phase_1" / f".shards{TEMPORARY}1234"
    shards.mkdir()
    (shards / "00000_00000.npz").touch()
    with lock_run_folder(tmp_path, below=("phase_*",)):
        left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob(f".*{TEMPORARY}*"))
    assert left == [f"{name}/.x{TEMPORARY}12345678.json" for name in ("a", "pictures")]
    assert len(list(tmp_path.rglob("x.json"))) == 4
    assert remove_leftovers(tmp_path / "missing") == []
