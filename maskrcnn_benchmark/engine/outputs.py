"""Writers of drawn frames (PNG files, mp4) and the JSON file of all detections."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from maskrcnn_benchmark.engine.frames import Frame, FrameSource
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError, UsageError
from maskrcnn_benchmark.utils.files import atomic_path, make_folder, write_json
from maskrcnn_benchmark.utils.video import VideoWriter

_LOG = logging.getLogger(__name__)
_PNG_COMPRESSION = 1  # of 9: four times as fast as the default, files a tenth larger


class FrameWriter(Protocol):
    """Writes drawn images in order."""

    def write(self, frame: Frame, drawn: Image.Image) -> Path:
        """Write one and return its file."""
        ...

    def close(self) -> None:
        """Finish the files."""
        ...


class ImageFrameWriter:
    """`<folder>/<stem>.png` for every image file; images of the same stem get a number."""

    def __init__(self, folder: Path, images: Sequence[Path]) -> None:
        """Choose the file names; UsageError when one would replace an image that is to be read."""
        self.targets = dict(zip(map(str, images), _names(folder, images), strict=True))
        inputs = {p.resolve() for p in images}
        clash = next((t for t in self.targets.values() if t.resolve() in inputs), None)
        if clash is not None:
            raise UsageError(f"drawing would replace the image {clash}: give another folder as --out")

    def write(self, frame: Frame, drawn: Image.Image) -> Path:
        """Write one and return its file."""
        target = self.targets[frame.name]
        _save(drawn, target)
        return target

    def close(self) -> None:
        """Every file is finished already."""


class VideoFrameWriter:
    """`<folder>/<stem>.mp4`, or `<folder>/<stem>/<number>.png` where OpenCV cannot encode mp4."""

    def __init__(self, folder: Path, stem: str, fps: float) -> None:
        self.path = folder / f"{stem}.mp4"
        self.fps = fps
        self._open = ExitStack()
        self._video: VideoWriter | None = None
        self._image_folder: Path | None = None

    def write(self, frame: Frame, drawn: Image.Image) -> Path:
        """Write one and return the file; the first image determines the size of the video."""
        if self._video is None and self._image_folder is None:
            self._start(drawn.size)
        if self._video is not None:
            self._video.write(np.asarray(drawn))
            return self.path
        assert self._image_folder is not None
        target = self._image_folder / f"{frame.index or 0:06d}.png"
        _save(drawn, target)
        return target

    def _start(self, size: tuple[int, int]) -> None:
        try:
            with ExitStack() as stack:
                temporary = stack.enter_context(atomic_path(self.path))
                self._video = stack.enter_context(VideoWriter(temporary, size, self.fps))
                self._open = stack.pop_all()
        except DataError as error:
            self._image_folder = make_folder(self.path.with_suffix(""))
            _LOG.warning("%s; writing numbered images into %s", error, self._image_folder)

    def close(self) -> None:
        """Finish the video; without any image there is no file."""
        self._open.close()


def open_frame_writer(source: FrameSource, folder: Path, fps: float | None) -> FrameWriter:
    """Return the writer of the drawn frames of `source`; UsageError when it would replace its input."""
    if not source.moving:
        return ImageFrameWriter(folder, source.images)
    writer = VideoFrameWriter(
        folder, source.path.stem if source.path else source.name.replace(" ", "_"), fps or 25.0
    )
    if source.path is not None and writer.path.resolve() == source.path.resolve():
        raise UsageError(f"drawing would replace the video {source.path}: give another folder as --out")
    return writer


class PredictionFile:
    """All detections as one JSON object in the style of COCO.

    `images`: id, file_name, width, height, milliseconds per stage, for videos frame and time_s, or an
    error; `categories`: id, name; `annotations`: COCO results (image_id, category_id, bbox, score,
    segmentation as compressed RLE, keypoints) with category_name.
    """

    def __init__(self, class_names: Sequence[str], label_to_category: Sequence[int]) -> None:
        """Take names and category ids by label; index 0 (background) is left out."""
        self.label_to_category = list(label_to_category)
        self.names = dict(zip(self.label_to_category[1:], class_names[1:], strict=True))
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, frame: Frame, detections: BoxList | None, milliseconds: Mapping[str, float]) -> None:
        """Add an image and its detections at its own size (None: it could not be read)."""
        image_id = len(self.images) + 1
        entry: dict[str, Any] = {"id": image_id, "file_name": frame.name}
        if frame.index is not None and frame.time_s is not None:
            entry |= {"frame": frame.index, "time_s": round(frame.time_s, 4)}
        if detections is None:
            self.images.append(entry | {"error": frame.error})
            return
        width, height = detections.size
        stages = {stage: round(ms, 3) for stage, ms in milliseconds.items()}
        self.images.append(entry | {"width": width, "height": height, "milliseconds": stages})
        plain = detections.copy_with_fields(("scores", "labels", "keypoints"), skip_missing=True)
        if detections.has_field("masks"):
            plain.add_field("mask", detections.get_field("masks")[:, None])
        for record in boxlist_to_detections(
            plain, image_id, (width, height), self.label_to_category
        ).records():
            self.annotations.append(record | {"category_name": self.names[record["category_id"]]})

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        categories = [{"id": category, "name": name} for category, name in self.names.items()]
        write_json(path, {"images": self.images, "categories": categories, "annotations": self.annotations})


def _names(folder: Path, images: Sequence[Path]) -> list[Path]:
    """A distinct PNG file in `folder` for every image."""
    taken: set[str] = set()
    targets = []
    for path in images:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name)
        targets.append(folder / f"{name}.png")
    return targets


def _save(drawn: Image.Image, target: Path) -> None:
    with atomic_path(target) as temporary:
        drawn.save(temporary, compress_level=_PNG_COMPRESSION)
