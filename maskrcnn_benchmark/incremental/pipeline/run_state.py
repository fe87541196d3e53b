"""state.json: which stages of a run are finished, from which inputs and settings."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, sha256_file, write_json

_VERSION = 1


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class RunState:
    """Records of the stages of a run; each change is written to disk at once.

    A record is {"stage", "inputs": name -> SHA-256, "config": SHA-256 of the settings, "finished": time or
    null}; null means begun. Hashes of files are cached by size and modification time.
    """

    def __init__(self, path: str | Path) -> None:
        """Read `path` if it exists; DataError when it is not a state file of this version."""
        self.path = Path(path)
        self._stages: dict[str, dict[str, Any]] = {}
        self._files: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            data = read_json(self.path, what="run state")
            if not isinstance(data, dict) or data.get("version") != _VERSION:
                raise DataError(f"{self.path}: not a state file of this version; use a new OUTPUT_DIR")
            self._stages, self._files = data["stages"], data["files"]

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
        end = _now() if finished else None
        self._stages[stage] = {"stage": stage, "inputs": inputs, "config": config, "finished": end}
        self._save()

    def finish(self, stage: str) -> None:
        """Record that a begun stage is complete."""
        self._stages[stage]["finished"] = _now()
        self._save()

    def file_hash(self, path: str | Path) -> str:
        """SHA-256 of a file, recomputed only when its size or modification time changed.

        Raises:
            DataError: when the file does not exist.
        """
        path = Path(path)
        try:
            stat = path.stat()
        except OSError:
            raise DataError(f"{path} does not exist") from None
        key = str(path.resolve())
        known = self._files.get(key)
        if known is None or known["size"] != stat.st_size or known["mtime_ns"] != stat.st_mtime_ns:
            known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_file(path)}
            self._files[key] = known
        return known["sha256"]

    def _save(self) -> None:
        """Write the file atomically."""
        write_json(self.path, {"version": _VERSION, "stages": self._stages, "files": self._files}, indent=1)
