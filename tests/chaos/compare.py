"""Differences between the folders of two runs, except for times and paths."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

TIMES = ("time", "data", "eta_seconds")
# The hash of a checkpoint file, which holds the path of its run.
_HASHES = ("checkpoint",)


def differences(
    expected: Path, actual: Path, aside: str = "", home: Path | None = None, skip: str = ""
) -> list[str]:
    """One line per file that is missing, unexpected or different; files are compared by content.

    Files whose names hold `aside` may be there in addition. `home`: folder in which `expected` was written.
    `skip`: a file that is not compared.
    """
    names = [{str(p.relative_to(run)) for p in _files(run)} for run in (expected, actual)]
    if aside:
        names[1] = {name for name in names[1] if aside not in name}
    lines = [f"{name} is missing" for name in sorted(names[0] - names[1])]
    lines += [f"{name} should not be there" for name in sorted(names[1] - names[0])]
    for name in sorted((names[0] & names[1]) - {skip}):
        same = _same(_content(expected / name, home or expected), _content(actual / name, actual))
        lines += [] if same else [f"{name} differs"]
    for metrics in sorted(actual.rglob("metrics.jsonl")):
        if not skip and _events(metrics.parent / "tensorboard") != _scalars(metrics):
            lines.append(f"{metrics.parent.relative_to(actual)}/tensorboard differs from metrics.jsonl")
    return lines


def _files(run: Path) -> Iterator[Path]:
    """Files that must be equal: all but logs and event files, whose names hold the time."""
    for path in run.rglob("*"):
        if (
            path.is_file()
            and path.name not in ("log.txt", "console.txt")
            and path.parent.name != "tensorboard"
        ):
            yield path


def _content(path: Path, run: Path) -> Any:
    """Content of a file without times, paths and hashes of its run."""
    if path.suffix == ".pth":
        return _without_folder(torch.load(path, weights_only=True), run)
    if path.name in ("state.json", "state.backup.json"):
        return {key: bool(r["finished"]) for key, r in json.loads(path.read_text())["stages"].items()}
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        return (
            {k: v for k, v in content.items() if k not in _HASHES} if isinstance(content, dict) else content
        )
    if path.suffix == ".jsonl":
        return [{k: v for k, v in r.items() if k not in TIMES} for r in _records(path)]
    if path.suffix in (".npy", ".npz"):
        arrays = np.load(path)
        return {name: arrays[name] for name in arrays.files} if path.suffix == ".npz" else arrays
    if path.suffix == ".yml":
        return _normalized(path.read_text(), run)
    return path.read_bytes()


def _without_folder(value: Any, run: Path) -> Any:
    if isinstance(value, dict):
        return {k: _without_folder(v, run) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folder(v, run) for v in value]
    return _normalized(value, run) if isinstance(value, str) else value


def _normalized(text: str, run: Path) -> str:
    """Text of a configuration without the folder of its run and its number of loader workers."""
    return re.sub(r"NUM_WORKERS: \d+", "NUM_WORKERS: N", text.replace(str(run), "RUN"))


def _same(a: Any, b: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _scalars(metrics: Path) -> dict[tuple[int, str], float]:
    """(iteration, tag) -> scalar, as event files hold them."""
    return {
        (record["iteration"], scalar(f"{record['kind']}/{name}", 0.0).value[0].tag): struct.unpack(
            "f", struct.pack("f", value)
        )[0]
        for record in _records(metrics)
        for name, value in record.items()
        if name not in ("kind", "iteration") and value is not None
    }


def _events(folder: Path) -> dict[tuple[int, str], float]:
    """(step, tag) -> value as tensorboard shows them: a restart discards later steps."""
    found: dict[tuple[int, str], float] = {}
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        for event in _read_events(path.read_bytes()):
            if event.session_log.status == SessionLog.START:
                found = {key: value for key, value in found.items() if key[0] < event.step}
            for value in event.summary.value:
                found[(event.step, value.tag)] = value.simple_value
    return found


def _read_events(data: bytes) -> Iterator[Event]:
    """Records of an event file: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    start = 0
    while start + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        record = data[start + 12 : start + 12 + length]
        if len(record) < length:
            return  # cut off by a kill
        event = Event()
        event.ParseFromString(record)
        yield event
        start += 16 + length
