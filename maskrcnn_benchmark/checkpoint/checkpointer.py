"""Checkpoints of a run: written atomically, located again, and restored bit by bit."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.checkpoint.matching import match_names, strip_module_prefix
from maskrcnn_benchmark.checkpoint.run_state import check_buffers, check_run_state
from maskrcnn_benchmark.utils.comm import is_main_process
from maskrcnn_benchmark.utils.env import versions
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath, write_text

LAST, FINAL = "last_checkpoint", "model_final"
_LONGEST_NAME = 80  # of a file, in messages
_PERIODIC = re.compile(r"model_(\d{7,})\.pth")
_STATE_KEYS = ("model", "optimizer", "scheduler", "scaler", "iteration")
_logger = logging.getLogger(__name__)


def last_checkpoint(folder: StrPath) -> Path | None:
    """Locate the file from which a run in `folder` resumes; None when there is none yet.

    The file `last_checkpoint` holds its name relative to the folder, so that the folder can be moved; a
    path as older programs wrote it is tried as it is, then by its last component.

    Raises:
        CheckpointError: the file that is named is not there, or no name can be read.
    """
    note = Path(folder) / LAST
    if not os.path.lexists(note):
        return None
    try:
        name = note.read_text(encoding="utf-8").strip() if note.is_file() else None
    except (OSError, UnicodeDecodeError):
        name = None
    if name is None:
        raise CheckpointError(
            f"{note} cannot be read; write the name of a checkpoint into it, or remove it to start the run "
            "anew"
        )
    for path in (Path(folder) / name, Path(folder) / os.path.basename(name)):
        if name and _is_file(path):
            return path
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    raise CheckpointError(
        f"{note} names {shown!r}, which does not exist; remove {note} to start the run anew"
    )


def _is_file(path: Path) -> bool:
    """Whether a file exists; also for names that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def step_back(folder: StrPath) -> None:
    """Let `last_checkpoint` name the newest periodic checkpoint; without any the run starts anew."""
    note, periodic = Path(folder) / LAST, _periodic(Path(folder))
    if periodic:
        write_text(note, periodic[-1][1].name)
    else:
        note.unlink(missing_ok=True)


class Checkpointer:
    """Saves and restores everything that a run needs to resume as if it had never stopped.

    A checkpoint is a dict with `model`, `optimizer`, `scheduler`, `scaler`, `iteration`, the
    entries of `meta` (resolved configuration, class list ...), `versions` and the extra entries of
    `save`. All of them must be tensors, scalars, text or containers of these.

    Args:
        output_dir: folder of the run.
        model: plain or wrapped for parallel training; names are stored without `module.`.
        optimizer, scheduler, scaler: objects with state_dict and load_state_dict, or None.
        meta: entries stored in every checkpoint; a stored list `classes` must be equal when resuming.
        keep: periodic checkpoints (model_<7 digits>.pth) that stay; older ones are removed. 0 keeps all.
    """

    def __init__(
        self,
        output_dir: StrPath,
        model: nn.Module,
        optimizer: Any = None,
        scheduler: Any = None,
        scaler: Any = None,
        meta: Mapping[str, Any] | None = None,
        keep: int = 2,
    ) -> None:
        self._folder = Path(output_dir)
        self._model = model.module if isinstance(model, DistributedDataParallel) else model
        self._parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        self._meta = dict(meta or {})
        self._keep = keep

    def save(self, name: str, iteration: int, extra: Mapping[str, Any] | None = None) -> Path:
        """Write `<name>.pth` after `iteration` finished iterations; only the main process writes.

        `last_checkpoint` then names it, and periodic checkpoints beyond `keep` are removed.
        """
        path = self._folder / f"{name}.pth"
        if not is_main_process():
            return path
        data: dict[str, Any] = {**self._meta, **(extra or {}), "versions": versions()}
        data["model"] = self._model.state_dict()
        data["iteration"] = iteration
        for key, part in self._parts.items():
            if part is not None:
                data[key] = part.state_dict()
        save_atomic(data, path)
        write_text(self._folder / LAST, path.name)
        _logger.info("saved %s", path)
        self._remove_old(iteration)
        return path

    def resume(self) -> dict[str, Any] | None:
        """Restore the last checkpoint of the folder; None when there is none.

        When that file is damaged, a warning says so and the newest readable one before it is used.

        Returns:
            `iteration`, and the entries of `meta` and `extra` of the checkpoint.

        Raises:
            CheckpointError: no checkpoint can be read, or it belongs to another model or class list.
        """
        try:
            last = last_checkpoint(self._folder)
        except CheckpointError as error:
            last = self._newest(error)
        if last is None:
            return None
        path, data = self._read(last)
        check_run_state(path, data)
        self._check(path, data)
        if self._parts["optimizer"] is not None:
            check_buffers(path, data.get("optimizer"), self._parts["optimizer"])
        self._model.load_state_dict(strip_module_prefix(data["model"]))
        for key, part in self._parts.items():
            if part is None:
                continue
            try:
                part.load_state_dict(data[key])
            except Exception as error:  # its own checks are few: odd values end in errors of any type
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise CheckpointError(
                    f"{path}: its {key} state does not fit this run ({reason}); "
                    f"use the settings it began with, or another OUTPUT_DIR with MODEL.WEIGHT {path}"
                ) from None
        rest = {key: value for key, value in data.items() if key not in _STATE_KEYS}
        return {**rest, "iteration": data["iteration"]}

    def _newest(self, error: CheckpointError) -> Path:
        """The newest checkpoint, where `last_checkpoint` names none; raises `error` when there is none."""
        final = self._folder / f"{FINAL}.pth"
        files = [path for _, path in _periodic(self._folder)] + ([final] if final.is_file() else [])
        if not files or not (self._folder / LAST).is_file():
            raise error
        newest = max(files, key=lambda path: path.stat().st_mtime_ns)
        _logger.warning("%s, or let it resume from %s, as it does now", error, newest)
        return newest

    def _read(self, last: Path) -> tuple[Path, dict[str, Any]]:
        """File and content of `last`, or of the newest readable periodic checkpoint before it."""
        limit = _iteration(last)
        older = [p for i, p in _periodic(self._folder) if p != last and (limit is None or i < limit)]
        damaged: list[CheckpointError] = []
        for path in [last, *reversed(older)]:
            try:
                data = read_checkpoint(path)
            except CheckpointError as error:
                damaged.append(error)
                continue
            for problem in damaged:
                _logger.warning("%s", problem)
            if damaged:
                _logger.warning("the run resumes from the older checkpoint %s", path)
            return path, data
        raise CheckpointError(
            f"{damaged[0]}, or remove {self._folder / LAST} to start the run anew; there is no older "
            "checkpoint to go back to"
        )

    def _check(self, path: Path, data: Mapping[str, Any]) -> None:
        """Require a checkpoint of this model and of these classes."""
        stored, classes = data.get("classes"), self._meta.get("classes")
        if stored is not None and classes is not None and list(stored) != list(classes):
            raise CheckpointError(
                f"{path} was trained on another class list ({len(stored)} names, this run has "
                f"{len(classes)}); use another OUTPUT_DIR"
            )
        model_shapes = {k: tuple(v.shape) for k, v in self._model.state_dict().items()}
        shapes = {k: tuple(v.shape) for k, v in strip_module_prefix(data["model"]).items()}
        if model_shapes != shapes:
            report = match_names(model_shapes, shapes)
            wrong = [m.model_name for m in report.mismatched] + report.missing + report.unexpected
            raise CheckpointError(
                f"{path} belongs to another model: {len(wrong)} tensors differ, the first is {wrong[0]}; "
                "use the settings the run began with, or another OUTPUT_DIR"
            )

    def _remove_old(self, iteration: int) -> None:
        """Remove the oldest periodic checkpoints up to `iteration`.

        Later ones remain from before the run resumed from an older one; they will be overwritten.
        """
        if self._keep <= 0:
            return
        files = [path for i, path in _periodic(self._folder) if i <= iteration]
        for path in files[: -self._keep]:
            path.unlink(missing_ok=True)


def _iteration(path: Path) -> int | None:
    """Iteration in the name of a periodic checkpoint; None for other names."""
    match = _PERIODIC.fullmatch(path.name)
    return int(match[1]) if match else None


def _periodic(folder: Path) -> list[tuple[int, Path]]:
    """Periodic checkpoints with their iterations, in ascending order."""
    files = ((_iteration(path), path) for path in folder.glob("model_*.pth"))
    return sorted((iteration, path) for iteration, path in files if iteration is not None)
