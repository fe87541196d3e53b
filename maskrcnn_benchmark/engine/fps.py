"""Latency per stage and images per second of a predictor, one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from maskrcnn_benchmark.engine.frames import Frame, FrameSource
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.stages import PREDICTOR, time_predictor
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.env import device_name
from maskrcnn_benchmark.utils.errors import DataError, UsageError
from maskrcnn_benchmark.utils.table import format_table
from maskrcnn_benchmark.utils.timer import StageTimer

Draw = Callable[[Image.Image, BoxList], object]
READ, DRAW = "read", "draw"


@dataclass(frozen=True)
class FpsReport:
    """Latency of single images.

    Attributes:
        stages: name -> milliseconds of every image, in the order in which they pass; reading first.
        facts: device, precision, sizes and counts, for the heading and the JSON file.
    """

    stages: dict[str, np.ndarray]
    facts: dict[str, Any]

    def totals(self) -> dict[str, np.ndarray]:
        """Return ms per image of detection alone, with reading, and with reading and drawing."""
        detect = sum(t for name, t in self.stages.items() if name not in (READ, DRAW))
        read = detect + self.stages[READ]
        totals = {"detect": detect, "read, detect": read}
        if DRAW in self.stages:
            totals["read, detect, draw"] = read + self.stages[DRAW]
        return {name: np.asarray(t) for name, t in totals.items()}

    def table(self) -> str:
        """Format stages and totals with median, 90 % quantile and images per second."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        rows = [[name, _median(t), _p90(t), None] for name, t in self.stages.items()]
        rows += [[name, _median(t), _p90(t), 1000 / _median(t)] for name, t in self.totals().items()]
        return f"{facts}\n" + format_table(["stage", "median ms", "90 % ms", "fps"], rows)

    def to_json(self) -> dict[str, Any]:
        """Return facts, stages and totals as plain values."""
        stages = {n: {"median_ms": _median(t), "p90_ms": _p90(t)} for n, t in self.stages.items()}
        totals = {
            n: {"median_ms": _median(t), "p90_ms": _p90(t), "fps": round(1000 / _median(t), 3)}
            for n, t in self.totals().items()
        }
        return {**self.facts, "stages": stages, "totals": totals}


def measure_fps(
    predictor: Predictor, source: FrameSource, draw: Draw | None, *, warmup: int = 5, repeat: int = 30
) -> FpsReport:
    """Measure `repeat` images of `source`, which is repeated when it ends, after `warmup` unmeasured ones.

    Stages run one after the other and the device is synchronised between them: the sum is the latency of an
    image from file to drawing, and an ordinary run, which reads ahead, has a higher throughput. `draw` None
    leaves drawing out. Raises UsageError for invalid counts, DataError for an image that cannot be read.
    """
    if repeat < 1 or warmup < 0:
        raise UsageError(f"--repeat must be at least 1 and --warmup at least 0, got {repeat} and {warmup}")
    timer, read, num_detections = StageTimer(predictor.device), [], 0
    sizes: set[tuple[int, int]] = set()
    time_predictor(predictor, timer)
    try:
        for frame in islice(_endless(source), warmup + repeat):
            if frame.image is None:
                raise DataError(str(frame.error))
            detections = predictor(frame.image)
            if draw is not None:
                with timer.stage(DRAW):
                    draw(frame.image, detections)
            timer.end_round()
            read.append(frame.read_ms)
            sizes.add(frame.image.size)
            num_detections += len(detections) if len(read) > warmup else 0
    finally:
        timer.restore()
    stages = {READ: np.array(read[warmup:])}
    for name in _ordered_stages(timer):
        stages[name] = np.array([t.to_ms().wall for t in timer.times(name)[warmup:]])
    return FpsReport(stages, _facts(predictor, sizes, num_detections / repeat, warmup, repeat))


def _endless(source: FrameSource) -> Iterator[Frame]:
    """The frames of a source, repeated without end."""
    while True:
        yield from source.open().frames


def _ordered_stages(timer: StageTimer) -> list[str]:
    """Names of the measured stages, in the order in which an image passes them."""
    seen = list(dict.fromkeys(name for entered in timer.rounds for name in entered))
    outer = [*PREDICTOR.values(), DRAW]
    first, last = outer[:2], outer[2:]
    inner = [name for name in seen if name not in outer]
    return [name for name in (*first, *inner, *last) if name in seen]


def _facts(
    predictor: Predictor, sizes: set[tuple[int, int]], objects: float, warmup: int, repeat: int
) -> dict[str, Any]:
    return {
        "device": device_name(predictor.device),
        "precision": str(predictor.precision.dtype).removeprefix("torch."),
        "picture": " ".join(f"{w}x{h}" for w, h in sorted(sizes)[:3]) + (" ..." if len(sizes) > 3 else ""),
        "objects": round(objects, 1),
        "pictures": repeat,
        "warm-up": warmup,
    }


def _median(times: np.ndarray) -> float:
    return round(float(np.median(times)), 4)


def _p90(times: np.ndarray) -> float:
    return round(float(np.quantile(times, 0.9)), 4)
