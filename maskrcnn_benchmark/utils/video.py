"""Video files and cameras, through the optional package OpenCV."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from maskrcnn_benchmark.utils.errors import DataError, UsageError

_CODEC = "mp4v"  # MPEG-4 part 2: the mp4 encoder that every build of OpenCV with FFmpeg has
_DEFAULT_FPS = 25.0


def require_cv2() -> ModuleType:
    """Import cv2; UsageError with the command that installs it when it is missing."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: its complaints come back as our errors
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise UsageError(
            "video needs the package OpenCV: pip install opencv-python-headless (or this package with its "
            "extra [video])"
        ) from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class VideoReader:
    """Iterator over the frames of a video file or camera; a context manager.

    Attributes:
        fps: frames per second, 25 where the source does not tell.
        count: frames announced by the file, None when unknown (cameras, some containers).
    """

    def __init__(self, source: Path | int) -> None:
        """Open a file or the camera of that index. Raises DataError (file) or UsageError (camera)."""
        cv2 = require_cv2()
        self.name = f"camera {source}" if isinstance(source, int) else str(source)
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        self._cv2: Any = cv2
        if not self._capture.isOpened():
            if isinstance(source, int):
                raise UsageError(f"camera {source} cannot be opened; connect it, or give another index")
            if not source.is_file():
                raise DataError(f"video {source} does not exist")
            raise DataError(f"video {source} cannot be decoded: it is damaged or of an unknown format")
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        frames = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else _DEFAULT_FPS
        self.count = int(frames) if math.isfinite(frames) and frames >= 1 else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield RGB frames (h, w, 3) uint8 until the end or the first frame that cannot be decoded."""
        while True:
            success, frame = self._capture.read()
            if not success:
                return
            yield self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.release()


class VideoWriter:
    """Writer of an mp4 file from RGB frames (h, w, 3) uint8 of one size; a context manager."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """`size`: (width, height). Raises DataError when this OpenCV has no encoder for mp4."""
        cv2 = require_cv2()
        self._cv2: Any = cv2
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*_CODEC), fps, size)
        if not self._writer.isOpened():
            raise DataError(
                f"video {path} cannot be written: this OpenCV has no {_CODEC} encoder; install the package "
                "opencv-python-headless"
            )
        self.size = size

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (h, w, 3); ValueError for another size, which OpenCV would drop silently."""
        if frame.shape != (self.size[1], self.size[0], 3):
            raise ValueError(f"frame of shape {frame.shape} in a video of {self.size} (w, h)")
        self._writer.write(self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2BGR))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.release()


class Window:
    """Window that shows frames; needs an OpenCV with a GUI."""

    def __init__(self, title: str) -> None:
        """Raises UsageError when windows are not available."""
        self._cv2: Any = require_cv2()
        self._title = title
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error:
            raise UsageError(
                "this OpenCV cannot open windows: pip uninstall opencv-python-headless, then pip install "
                "opencv-python; or leave --show out and give --out DIR"
            ) from None

    def show(self, frame: np.ndarray) -> bool:
        """Show an RGB frame (h, w, 3) uint8; False when the user pressed q or Esc."""
        self._cv2.imshow(self._title, self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2BGR))
        return self._cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    def close(self) -> None:
        """Close the window."""
        self._cv2.destroyWindow(self._title)
