"""One run at a time in a folder; leftovers of a killed one are removed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from maskrcnn_benchmark.utils.errors import ConfigError, UsageError
from maskrcnn_benchmark.utils.files import TEMPORARY, remove_leftovers
from maskrcnn_benchmark.utils.run_lock import NAME, claimed


def _hold(folder: Path) -> int:
    """A process that holds `folder` until it is killed."""
    pid = os.fork()
    if pid == 0:
        with claimed(folder):
            (folder / "held").touch()
            time.sleep(60)
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
            claimed(tmp_path / "run"),
        ):
            pytest.fail("the folder is taken")
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    assert (tmp_path / "run" / NAME).exists()
    with claimed(tmp_path / "run"):
        assert (tmp_path / "run" / NAME).read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / "run" / NAME).exists()


def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="inside"), claimed(tmp_path):
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
    with claimed(tmp_path, below=("phase_*",)):
        left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob(f".*{TEMPORARY}*"))
    assert left == [f"{name}/.x{TEMPORARY}12345678.json" for name in ("a", "pictures")]
    assert len(list(tmp_path.rglob("x.json"))) == 4
    assert remove_leftovers(tmp_path / "missing") == []
