"""state.json and its backup: each has a checksum of its content, and one is restored from the other."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, sha256_json, write_json

BACKUP_FILE = "state.backup.json"
_VERSION = 1
Records = dict[str, dict[str, Any]]


@dataclass
class StateContent:
    """Content of a state file.

    Attributes:
        stages: records of the stages by key. files: cached hashes by path.
        outputs: by key of a stage, or another name, the files that it wrote: path below the run folder ->
            its record (see `RunState.outputs`); empty in a file of an earlier version.
        before: the same of stages that have to be done again, as it was when they were finished.
        run: name of the run, by which files of another run are told apart; "" of an earlier version.
        damaged: problem of each of the two files that has to be set aside or written again.
    """

    stages: Records = field(default_factory=dict)
    files: Records = field(default_factory=dict)
    outputs: dict[str, Records] = field(default_factory=dict)
    before: dict[str, Records] = field(default_factory=dict)
    run: str = ""
    damaged: dict[Path, str] = field(default_factory=dict)


def read_state(path: Path) -> StateContent:
    """Read the state of a run from `path` or, where that is damaged or missing, from its backup.

    Nothing is changed on the disk. Without both files the state is that of a new run.

    Raises:
        DataError: when neither of them can be read.
    """
    backup = path.with_name(BACKUP_FILE)
    contents: dict[Path, StateContent] = {}
    problems: dict[Path, str] = {}
    for file in (path, backup):
        try:
            contents[file] = _read(file)
        except DataError as error:
            problems[file] = str(error)
    if not contents:
        known = [file for file in (path, backup) if file.is_symlink() or file.exists()]
        if not known:
            return StateContent(run=secrets.token_hex(8))
        raise DataError(
            f"{problems[known[0]]}; use a new OUTPUT_DIR, or move the file away to do all stages again (what "
            "was trained is moved to the folders `previous`)"
        )
    if len(contents) == 2 and contents[path].run and contents[path].run != contents[backup].run:
        wrong = min((path, backup), key=lambda file: _fitting(contents[file], path.parent))
        problems[wrong] = f"run state {wrong} belongs to another run"
        del contents[wrong]
    content = contents.get(path) or contents[backup]
    content.damaged = problems
    if not content.run:
        # begun by an earlier version, which writes no backup
        content.run, content.damaged = secrets.token_hex(8), {}
    return content


def write_state(path: Path, content: StateContent) -> None:
    """Write the state and then its backup, each atomically."""
    data = {
        "version": _VERSION,
        "run": content.run,
        "stages": content.stages,
        "files": content.files,
        "outputs": content.outputs,
        "before": content.before,
    }
    for file in (path, path.with_name(BACKUP_FILE)):
        write_json(file, {**data, "checksum": sha256_json(data)}, indent=1)


def _read(path: Path) -> StateContent:
    """Content of one file; DataError when it is missing, damaged or of another program."""
    if path.exists() and not path.is_file():
        raise DataError(f"run state {path} is no file")
    data = read_json(path, what="run state")
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        raise DataError(f"{path} is not a state file of this version")
    if {"checksum", "outputs", "run"} & data.keys():
        rest = {key: value for key, value in data.items() if key != "checksum"}
        if data.get("checksum") != sha256_json(rest):
            raise DataError(f"run state {path} is damaged: its checksum is wrong")
    parts = [data.get("stages"), data.get("files"), data.get("outputs", {}), data.get("before", {})]
    if not all(isinstance(part, dict) and all(isinstance(v, dict) for v in part.values()) for part in parts):
        raise DataError(f"run state {path} is damaged: it does not list stages and files")
    if not all({"inputs", "config", "finished"} <= record.keys() for record in data["stages"].values()):
        raise DataError(f"run state {path} is damaged: a stage has no inputs, settings or end")
    return StateContent(
        data["stages"], data["files"], data.get("outputs", {}), data.get("before", {}), data.get("run", "")
    )


def _fitting(content: StateContent, folder: Path) -> int:
    """Number of recorded output files that exist in `folder` with their recorded size."""
    records = [pair for files in content.outputs.values() for pair in files.items()]
    return sum(
        (folder / name).is_file() and (folder / name).stat().st_size == record["size"]
        for name, record in records
    )
