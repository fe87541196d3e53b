"""state.json and its backup: damage of one, of both, files of another run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from maskrcnn_benchmark.incremental.pipeline.repair import open_state
from maskrcnn_benchmark.incremental.pipeline.run_state import (
    OTHER_FILES,
    SAME_FILES,
    RunState,
)
from maskrcnn_benchmark.utils.errors import DataError


def make(folder: Path, content: str = "a") -> Path:
    """The state of a run whose stage wrote one file."""
    folder.mkdir(exist_ok=True)
    (folder / "out.txt").write_text(content)
    state = RunState(folder / "state.json")
    state.begin("phase_0/train", {}, "settings")
    state.finish("phase_0/train", [folder / "out.txt"])
    return folder / "state.json"


def _flip(path: Path) -> None:
    text = path.read_text()
    at = text.index('"sha256": "') + 12
    path.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": _flip,
    "cut": lambda path: path.write_text(path.read_text()[:150]),
    "empty": lambda path: path.write_text(""),
    "binary": lambda path: path.write_bytes(b"\x00\xff" * 99),
    "deep": lambda path: path.write_text("[" * 100_000),
    "another file": lambda path: path.write_text('{"version": 1, "stages": [], "files": {}}'),
    "another version": lambda path: path.write_text('{"version": 7}'),
    "without its checksum": lambda path: path.write_text(
        path.read_text().replace('"checksum"', '"checksun"')
    ),
    "missing": Path.unlink,
    "folder": _folder,
}


@pytest.mark.parametrize("name", ["state.json", "state.backup.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_is_restored_from_the_other(
    tmp_path: Path, damage: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = make(tmp_path / "run")
    before = path.read_text()
    DAMAGES[damage](path.with_name(name))
    kept = path.with_name(name).exists()
    state = open_state(path)
    assert state.finished("phase_0/train") and state.outputs("phase_0/train")
    assert caplog.text.count("\n") == 1 and f"{path.with_name(name)}" in caplog.text
    assert path.read_text() == path.with_name("state.backup.json").read_text() == before
    assert path.with_name(f"{name}.damaged").exists() == kept


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "missing"])
def test_without_a_backup_it_is_one_line(tmp_path: Path, damage: str) -> None:
    path = make(tmp_path / "run")
    DAMAGES[damage](path)
    path.with_name("state.backup.json").unlink()
    with pytest.raises(DataError, match=r"state.*use a new OUTPUT_DIR, or move the file away") as error:
        open_state(path)
    assert "\n" not in str(error.value)


def test_a_file_of_another_run_is_recognised_by_the_outputs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = make(tmp_path / "run"), make(tmp_path / "other", "bcd")
    for name in ("state.json", "state.backup.json"):
        before = path.read_text()
        path.with_name(name).write_text(other.read_text())
        assert open_state(path).outputs("phase_0/train")["out.txt"]["size"] == 1
        assert f"{path.with_name(name)} belongs to another run" in caplog.text
        assert path.read_text() == before


def test_a_stage_that_is_done_again_is_compared_also_after_a_kill(tmp_path: Path) -> None:
    path = make(tmp_path / "run")
    for content, expected in (("a", SAME_FILES), ("b", OTHER_FILES), ("b", SAME_FILES)):
        RunState(path).reopen(["phase_0/train"])
        state = RunState(path)
        assert not state.finished("phase_0/train") and not state.outputs("phase_0/train")
        state.begin("phase_0/train", {}, "settings")
        (tmp_path / "run" / "out.txt").write_text(content)
        assert RunState(path).finish("phase_0/train", [tmp_path / "run" / "out.txt"]) == expected
    assert json.loads(path.read_text())["before"] == {}
