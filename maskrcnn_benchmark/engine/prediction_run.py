"""Run a predictor over images, videos and cameras: read ahead, detect, draw, write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_benchmark.engine.frames import Frame, FrameSource, FrameStream
from maskrcnn_benchmark.engine.outputs import FrameWriter, PredictionFile, open_frame_writer
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.read_ahead import read_ahead
from maskrcnn_benchmark.utils.video import Window

_LOG = logging.getLogger(__name__)
_READ_AHEAD = 2
_MAX_LISTED = 20

Draw = Callable[[Image.Image, BoxList], Image.Image]


@dataclass(frozen=True)
class FrameDetections:
    """A frame, its detections (None: it could not be read), and milliseconds per stage."""

    frame: Frame
    detections: BoxList | None
    milliseconds: dict[str, float]


@dataclass
class PredictionSummary:
    """Counts of a run: frames processed, objects detected, inputs that could not be read."""

    frames: int = 0
    objects: int = 0
    unreadable: int = 0
    interrupted: bool = False

    def exit_code(self) -> int:
        """130 after Ctrl-C, 1 when something could not be read, else 0."""
        return 130 if self.interrupted else int(self.unreadable > 0)


@contextmanager
def detect_frames(predictor: Predictor, frames: Iterator[Frame]) -> Iterator[Iterator[FrameDetections]]:
    """Context manager that yields the detections of every frame, in order.

    A thread reads and transforms the next frames meanwhile. It stops when the block is left; its exceptions
    are raised by the iterator.
    """

    def prepare(frame: Frame) -> tuple[Frame, ImageList | None, float]:
        start = time.perf_counter()
        images = None if frame.image is None else predictor.prepare(frame.image)
        return frame, images, _ms_since(start)

    def detect(ready: Iterator[tuple[Frame, ImageList | None, float]]) -> Iterator[FrameDetections]:
        for frame, images, spent in ready:
            if images is None or frame.image is None:
                yield FrameDetections(frame, None, {})
                continue
            start = time.perf_counter()
            detections = predictor.postprocess(predictor.network(predictor.upload(images)), frame.image.size)
            yield FrameDetections(
                frame, detections, {"read": frame.read_ms, "transform": spent, "detect": _ms_since(start)}
            )

    with read_ahead(map(prepare, frames), _READ_AHEAD) as ready:
        yield detect(ready)


class PredictionRun:
    """Detect objects in all frames of some sources, and draw, show and write them.

    `draw`: returns the drawn image; `out`: folder of drawn images; `results`: file of all detections;
    `window`: shows drawn images. `summary` counts.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        draw: Draw | None = None,
        out: Path | None = None,
        results: PredictionFile | None = None,
        window: Window | None = None,
    ) -> None:
        self.predictor = predictor
        self.draw = draw
        self.out = out
        self.results = results
        self.window = window
        self.summary = PredictionSummary()

    def run(self, sources: Sequence[FrameSource]) -> PredictionSummary:
        """Process the sources.

        An image or video that cannot be read is reported and skipped. Ctrl-C stops and keeps the results so
        far. Raises UsageError when drawing would replace an input.
        """
        for source in sources:
            try:
                self._source(source)
            except DataError as error:
                _LOG.error("%s", error)
                self.summary.unreadable += 1
            except KeyboardInterrupt:
                # Ctrl-C is how a camera is ended.
                self.summary.interrupted = source.path is not None or not source.moving
                _LOG.info("interrupted: the results so far are kept")
                break
        return self.summary

    def _source(self, source: FrameSource) -> None:
        opened, before, start = source.open(), self.summary.frames, time.perf_counter()
        progress = Progress(opened.count, source.name, _LOG)
        with ExitStack() as stack:
            stack.callback(progress.close)
            writer = None
            if self.draw is not None and self.out is not None:
                writer = open_frame_writer(source, self.out, opened.fps)
                stack.callback(writer.close)
            for result in stack.enter_context(detect_frames(self.predictor, opened.frames)):
                more = self._process(result, source, writer)
                progress.update()
                if not more:
                    break
            else:
                _check_count(source, opened, self.summary.frames - before)
        count, spent = self.summary.frames - before, time.perf_counter() - start
        _LOG.info("%s: %d detected, %.2f per second", source.name, count, count / spent)

    def _process(self, result: FrameDetections, source: FrameSource, writer: FrameWriter | None) -> bool:
        """Draw, show, write and count one frame; False when the user closed the window."""
        frame, detections, more, target = result.frame, result.detections, True, ""
        if detections is None or frame.image is None:
            _LOG.error("%s", frame.error)
            self.summary.unreadable += 1
        else:
            if self.draw is not None:
                start = time.perf_counter()
                drawn = self.draw(frame.image, detections)
                result.milliseconds["draw"] = _ms_since(start)
                target = f" -> {writer.write(frame, drawn)}" if writer is not None else ""
                more = self.window is None or self.window.show(np.asarray(drawn))
            self.summary.frames += 1
            self.summary.objects += len(detections)
            if 0 < len(source.images) <= _MAX_LISTED:
                _LOG.info("%s: %d objects%s", frame.name, len(detections), target)
        if self.results is not None:
            self.results.add(frame, detections, result.milliseconds)
        return more


def _check_count(source: FrameSource, opened: FrameStream, done: int) -> None:
    """Warn when a video ended before the number of frames that it announces."""
    if source.path is not None and opened.count is not None and done < opened.count:
        _LOG.warning(
            "%s: only %d of %d announced frames could be decoded; the file may be cut off",
            source.name,
            done,
            opened.count,
        )


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)
