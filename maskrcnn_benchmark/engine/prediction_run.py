"""Images, videos and cameras through a predictor: read ahead, detect, draw, write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_benchmark.engine.frames import Frame, OpenFrames, Source
from maskrcnn_benchmark.engine.outputs import ResultFile, Sink, open_sink
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.read_ahead import read_ahead
from maskrcnn_benchmark.utils.video import Window

_LOG = logging.getLogger(__name__)
_AHEAD = 2
_LIST_UP_TO = 20

Draw = Callable[[Image.Image, BoxList], Image.Image]


@dataclass(frozen=True)
class Seen:
    """A frame, what was found in it (None: it could not be read), and milliseconds per step."""

    frame: Frame
    found: BoxList | None
    milliseconds: dict[str, float]


@dataclass
class Tally:
    """What became of the frames: detected ones, objects in them, those that could not be read."""

    done: int = 0
    objects: int = 0
    unreadable: int = 0
    interrupted: bool = False

    def exit_code(self) -> int:
        """130 after Ctrl-C, 1 when something could not be read, else 0."""
        return 130 if self.interrupted else int(self.unreadable > 0)


@contextmanager
def detect_frames(predictor: Predictor, frames: Iterator[Frame]) -> Iterator[Iterator[Seen]]:
    """Context with the detections of every frame, in order.

    The next frames are read and made into network input by a thread meanwhile, which stops when the block
    is left; its exceptions come out of the iterator.
    """

    def prepare(frame: Frame) -> tuple[Frame, ImageList | None, float]:
        start = time.perf_counter()
        images = None if frame.image is None else predictor.prepare(frame.image)
        return frame, images, _ms_since(start)

    def detect(ready: Iterator[tuple[Frame, ImageList | None, float]]) -> Iterator[Seen]:
        for frame, images, spent in ready:
            if images is None or frame.image is None:
                yield Seen(frame, None, {})
                continue
            start = time.perf_counter()
            found = predictor.finish(predictor.network(predictor.upload(images)), frame.image.size)
            yield Seen(frame, found, {"read": frame.read_ms, "transform": spent, "detect": _ms_since(start)})

    with read_ahead(map(prepare, frames), _AHEAD) as ready:
        yield detect(ready)


class PredictionRun:
    """Detection in all frames of some sources, with what is made of them.

    `draw`: makes the drawn image; `out`: folder of drawn images; `results`: gets everything that
    is found; `window`: shows drawn images. `tally` counts.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        draw: Draw | None = None,
        out: Path | None = None,
        results: ResultFile | None = None,
        window: Window | None = None,
    ) -> None:
        self.predictor = predictor
        self.draw = draw
        self.out = out
        self.results = results
        self.window = window
        self.tally = Tally()

    def run(self, sources: Sequence[Source]) -> Tally:
        """Go through the sources.

        An image or video that cannot be read is reported, and the others go on. Ctrl-C ends the work, with
        what is done so far kept. Raises UsageError when drawing would replace what is read.
        """
        for source in sources:
            try:
                self._source(source)
            except DataError as error:
                _LOG.error("%s", error)
                self.tally.unreadable += 1
            except KeyboardInterrupt:
                # Ctrl-C is how a camera is ended.
                self.tally.interrupted = source.path is not None or not source.moving
                _LOG.info("interrupted: what was found so far is kept")
                break
        return self.tally

    def _source(self, source: Source) -> None:
        opened, before, start = source.open(), self.tally.done, time.perf_counter()
        progress = Progress(opened.count, source.name, _LOG)
        with ExitStack() as stack:
            stack.callback(progress.close)
            sink = None
            if self.draw is not None and self.out is not None:
                sink = open_sink(source, self.out, opened.fps)
                stack.callback(sink.close)
            for seen in stack.enter_context(detect_frames(self.predictor, opened.frames)):
                going_on = self._frame(seen, source, sink)
                progress.update()
                if not going_on:
                    break
            else:
                _check_count(source, opened, self.tally.done - before)
        count, spent = self.tally.done - before, time.perf_counter() - start
        _LOG.info("%s: %d detected, %.2f per second", source.name, count, count / spent)

    def _frame(self, seen: Seen, source: Source, sink: Sink | None) -> bool:
        """Draw, show, write and count one frame; False when the user closed the window."""
        frame, found, going_on, target = seen.frame, seen.found, True, ""
        if found is None or frame.image is None:
            _LOG.error("%s", frame.error)
            self.tally.unreadable += 1
        else:
            if self.draw is not None:
                start = time.perf_counter()
                drawn = self.draw(frame.image, found)
                seen.milliseconds["draw"] = _ms_since(start)
                target = f" -> {sink.write(frame, drawn)}" if sink is not None else ""
                going_on = self.window is None or self.window.show(np.asarray(drawn))
            self.tally.done += 1
            self.tally.objects += len(found)
            if 0 < len(source.images) <= _LIST_UP_TO:
                _LOG.info("%s: %d objects%s", frame.name, len(found), target)
        if self.results is not None:
            self.results.add(frame, found, seen.milliseconds)
        return going_on


def _check_count(source: Source, opened: OpenFrames, done: int) -> None:
    """Say so when a video ended before the number of frames that it announces."""
    if source.path is not None and opened.count is not None and done < opened.count:
        _LOG.warning(
            "%s: only %d of %d announced frames could be decoded; the file may be cut off",
            source.name,
            done,
            opened.count,
        )


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)
