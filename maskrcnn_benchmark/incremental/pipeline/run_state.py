"""Record of a run: which stages are finished, from which inputs and settings, and which files they wrote."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.incremental.pipeline.state_file import read_state, write_state
from maskrcnn_benchmark.utils.errors import CheckpointError, DataError
from maskrcnn_benchmark.utils.files import sha256_file

FileRecords = dict[str, dict[str, Any]]
SAME_FILES, SAME_WEIGHTS, OTHER_FILES = "same files", "same weights", "other files"


def _weights_hash(path: Path) -> str:
    """SHA-256 of the names, types, shapes and values of the model in a checkpoint; "" if it is unreadable."""
    try:
        model = read_checkpoint(path)["model"]
    except CheckpointError:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class RunState:
    """Records of the stages of a run; each change is written to disk at once.

    A record is {"stage", "inputs": name -> SHA-256, "config": SHA-256 of the settings, "finished": time or
    null}; null means begun. Hashes of files are cached by size and modification time. The files that a
    finished stage wrote are recorded with size and SHA-256 (`outputs`).

    `damaged`: problems of state.json and its backup, one of which had to be read in place of the other.
    """

    def __init__(self, path: str | Path) -> None:
        """Read `path` or its backup if one exists; DataError when both are damaged."""
        self.path = Path(path)
        self._content = read_state(self.path)
        self._stages, self._files = self._content.stages, self._content.files
        self.damaged = self._content.damaged

    @property
    def folder(self) -> Path:
        """Run folder."""
        return self.path.parent

    def record(self, stage: str) -> dict[str, Any] | None:
        """Record of a stage; None when it was never begun."""
        return self._stages.get(stage)

    def finished(self, stage: str) -> bool:
        """Whether the stage has been completed (with any inputs)."""
        return bool(self._stages.get(stage, {}).get("finished"))

    def stages(self) -> list[str]:
        """Names of all stages begun or finished."""
        return list(self._stages)

    def begin(self, stage: str, inputs: dict[str, str], config: str, *, finished: bool = False) -> None:
        """Record that a stage begins with these inputs and settings, or is `finished` by reused results."""
        if self._stages.get(stage, {}).get("config") != config:
            self._content.before.pop(stage, None)
        end = _now() if finished else None
        self._stages[stage] = {"stage": stage, "inputs": inputs, "config": config, "finished": end}
        self._content.outputs.pop(stage, None)
        self.save()

    def finish(self, stage: str, outputs: Sequence[Path] = (), side: Sequence[Path] = ()) -> str:
        """Record that a begun stage is complete, with the hashes of its files (see `record_outputs`).

        Returns:
            Of a stage that was done again because of damaged files (see `reopen`), how its files compare with
            the earlier ones: SAME_FILES, SAME_WEIGHTS (later stages count as made from the new files then) or
            OTHER_FILES. Else "".
        """
        self.record_outputs(stage, outputs, side, save=False)
        self._stages[stage]["finished"] = _now()
        result = self._compare(self._content.before.pop(stage, {}), self.outputs(stage))
        self.save()
        return result

    def _compare(self, before: FileRecords, now: FileRecords) -> str:
        """Result of `finish`; the hashes of files with the same weights are replaced in all records."""
        files = [(record, now.get(file, {})) for file, record in before.items() if not record["side"]]
        if not files:
            return ""
        if all(old["sha256"] == new.get("sha256") for old, new in files):
            return SAME_FILES
        if not all(old.get("weights") and old["weights"] == new.get("weights") for old, new in files):
            return OTHER_FILES
        renamed = {old["sha256"]: new["sha256"] for old, new in files}
        for record in self._stages.values():
            record["inputs"] = {name: renamed.get(h, h) for name, h in record["inputs"].items()}
        return SAME_WEIGHTS

    def reopen(self, stages: Iterable[str]) -> None:
        """Record that finished stages have to be done again because files of theirs are damaged."""
        for stage in stages:
            self._content.before[stage] = self._content.outputs.pop(stage, {})
            if stage in self._stages:
                self._stages[stage]["finished"] = None
        self.save()

    def outputs(self, stage: str) -> dict[str, dict[str, Any]]:
        """Files that a stage wrote: path below the run folder -> its record; empty when nothing is recorded.

        A record has "size", "sha256", "side" (no later stage reads the file) and, for a checkpoint,
        "weights": the SHA-256 of its model alone, which does not depend on settings such as
        the number of workers.
        """
        return self._content.outputs.get(stage, {})

    def record_outputs(
        self,
        name: str,
        outputs: Sequence[Path],
        side: Sequence[Path] = (),
        *,
        again: bool = True,
        save: bool = True,
    ) -> None:
        """Record size and SHA-256 of the files of a stage, or of others under another `name`.

        Files of the kind `side` may be missing. `again`: see `file_hash`.
        """
        present = [path for path in side if path.is_file()]
        records: FileRecords = {}
        for path in (*outputs, *present):
            sha256 = self.file_hash(path, again=again)
            record = {"size": path.stat().st_size, "sha256": sha256, "side": path in present}
            if path.suffix == ".pth":
                record["weights"] = _weights_hash(path)
            records[path.relative_to(self.folder).as_posix()] = record
        self._content.outputs[name] = records
        if save:
            self.save()

    def update_side(self, name: str, path: Path) -> None:
        """Record a file of the kind `side` as it is now, or forget it when it does not exist."""
        key, files = path.relative_to(self.folder).as_posix(), self._content.outputs[name]
        if path.is_file():
            files[key] |= {"size": path.stat().st_size, "sha256": self.file_hash(path, again=True)}
        else:
            files.pop(key, None)
        self.save()

    def forget_outputs(self, name: str) -> None:
        """Drop what is recorded under `name`, because its files are about to be written."""
        if self._content.outputs.pop(name, None) is not None:
            self.save()

    def producer(self, path: Path) -> str:
        """Name under which `path` is recorded as an output; "" when it is not."""
        if not path.is_relative_to(self.folder):
            return ""
        key = path.relative_to(self.folder).as_posix()
        return next((name for name, files in self._content.outputs.items() if key in files), "")

    def recorded_hash(self, path: Path) -> str:
        """SHA-256 of a file as the stage that wrote it recorded it; "" when none did."""
        name = self.producer(path)
        return str(self.outputs(name)[path.relative_to(self.folder).as_posix()]["sha256"]) if name else ""

    def file_hash(self, path: str | Path, *, again: bool = False) -> str:
        """SHA-256 of a file, recomputed only when its size or modification time changed, or `again`.

        Raises:
            DataError: when the file does not exist or cannot be read.
        """
        path = Path(path)
        try:
            stat = path.stat()
        except OSError:
            raise DataError(f"{path} does not exist") from None
        known = None if again else self.cached_hash(path)
        if known is None:
            try:
                known = sha256_file(path)
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}") from None
            key = str(path.resolve())
            self._files[key] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": known}
        return known

    def cached_hash(self, path: Path) -> str | None:
        """SHA-256 that was computed before for a file of this size and modification time, or None."""
        known = self._files.get(str(path.resolve()))
        try:
            stat = path.stat()
        except OSError:
            return None
        if known is None or (known["size"], known["mtime_ns"]) != (stat.st_size, stat.st_mtime_ns):
            return None
        return str(known["sha256"])

    def save(self) -> None:
        """Write state.json and its backup."""
        write_state(self.path, self._content)
