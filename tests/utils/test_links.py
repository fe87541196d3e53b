"""No write of a run follows a symbolic link out of its folder."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from maskrcnn_benchmark.utils.errors import WriteError
from maskrcnn_benchmark.utils.files import append_jsonl, atomic_path, write_json, write_text
from maskrcnn_benchmark.utils.links import open_in_place
from maskrcnn_benchmark.utils.logger import NAME, setup_logger
from maskrcnn_benchmark.utils.run_lock import LOCK_FILE, lock_run_folder

PRECIOUS = "precious\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside of the run folder, which must stay as it is."""
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_text(PRECIOUS)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An empty run folder."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def _log(path: Path) -> None:
    try:
        setup_logger(str(path.parent), 0)
    finally:
        logger = logging.getLogger(NAME)
        logger.propagate, logger.level = True, logging.NOTSET
        logger.handlers.clear()


WRITES: dict[str, Callable[[Path], object]] = {
    "state.json": lambda path: write_json(path, {}),
    "last_checkpoint": lambda path: write_text(path, "x"),
    "metrics.jsonl": lambda path: append_jsonl(path, 1),
    "log.txt": _log,
}


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_a_file_that_is_a_link_out_is_refused(run: Path, victim: Path, name: str, dangling: bool) -> None:
    target = victim.with_name("new") if dangling else victim
    (run / name).symlink_to(target)
    with pytest.raises(WriteError, match=rf"run/{name} is a symbolic link to .*elsewhere.*remove the link"):
        WRITES[name](run / name)
    assert victim.read_text() == PRECIOUS and os.listdir(victim.parent) == ["victim"]
    assert os.listdir(run) == [name] and (run / name).is_symlink()


@pytest.mark.parametrize("name", [LOCK_FILE, "config.yml", "model_final.pth", "tensorboard", "phase_1"])
def test_a_run_does_not_begin_with_a_link_out(run: Path, victim: Path, name: str) -> None:
    (run / name).symlink_to(victim.parent if name in ("tensorboard", "phase_1") else victim)
    with (
        pytest.raises(WriteError, match=f"run/{name} is a symbolic link"),
        lock_run_folder(run, ("phase_*",)),
    ):
        pytest.fail("the run has begun")
    assert victim.read_text() == PRECIOUS and os.listdir(victim.parent) == ["victim"]


def test_a_link_deep_in_a_phase_is_seen_at_the_start(run: Path, victim: Path) -> None:
    (run / "phase_2" / "report").mkdir(parents=True)
    (run / "phase_2" / "report" / "metrics.json").symlink_to(victim)
    with (
        pytest.raises(WriteError, match=r"phase_2/report/metrics\.json is a symbolic link"),
        lock_run_folder(run, ("phase_*",)),
    ):
        pytest.fail("the run has begun")
    assert victim.read_text() == PRECIOUS


def test_a_lock_that_is_a_link_inside_is_refused_too(run: Path) -> None:
    (run / "other").write_text(PRECIOUS)
    (run / LOCK_FILE).symlink_to("other")
    with pytest.raises(WriteError, match=r"run\.lock is a symbolic link, .*remove it"), lock_run_folder(run):
        pytest.fail("the run has begun")
    assert (run / "other").read_text() == PRECIOUS


def test_links_that_users_make_are_fine(run: Path, victim: Path, tmp_path: Path) -> None:
    """The folder of the run, links to data in it, links inside it."""
    (tmp_path / "link").symlink_to(run)
    folder = tmp_path / "link"
    (run / "datasets").symlink_to(victim.parent)
    (run / "a.txt").symlink_to("b.txt")
    (run / "phase_0").mkdir()
    (run / "phase_0" / "first").symlink_to("../b.txt")
    with lock_run_folder(folder, ("phase_*",)):
        write_text(folder / "b.txt", "b")
        with open_in_place(folder / "a.txt") as file:
            file.write("+")
        assert (run / "b.txt").read_text() == "b+"
        write_text(folder / "phase_0" / "c.txt", "c")
        append_jsonl(folder / "metrics.jsonl", 1)
    assert (run / "phase_0" / "c.txt").read_text() == "c" and victim.read_text() == PRECIOUS


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask_which_stays(
    tmp_path: Path, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(mask)

    def touched(_: int) -> int:
        pytest.fail("the umask of the process was changed, if for a moment")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", touched)
            with atomic_path(tmp_path / "a") as temporary:
                assert stat.S_IMODE(temporary.stat().st_mode) == 0o666 & ~mask
            append_jsonl(tmp_path / "b", 1)
        assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o666 & ~mask}
    finally:
        os.umask(before)


def test_temporary_names_cannot_be_guessed_and_are_short_enough(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 240 + ".json")
    names = set()
    for _ in range(3):
        with atomic_path(target) as temporary:
            names.add(temporary.name)
    assert len(names) == 3 and max(map(len, names)) < 100 and os.listdir(tmp_path) == [target.name]


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").mkdir()
    with pytest.raises(
        WriteError, match=r"config\.yml cannot be written: Is a directory; .*move away what is"
    ):
        write_text(tmp_path / "config.yml", "x")
    assert os.listdir(tmp_path) == ["config.yml"]
