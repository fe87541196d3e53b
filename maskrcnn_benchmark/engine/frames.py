"""Frames to predict, one after another: from image files, folders, videos and cameras."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.data.datasets.image_sources import ImageSource, is_image_source, open_image_source
from maskrcnn_benchmark.data.datasets.images import read_source_image
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import StrPath
from maskrcnn_benchmark.utils.video import VideoReader

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")

ImageFile = tuple[ImageSource, str]
"""A source and the name of an image in it."""
_LOCAL = ImageSource("")


@dataclass(frozen=True)
class Frame:
    """One image on its way through the predictor.

    Attributes:
        name: the file as the user gave it, or the video or camera.
        image: RGB; None when it could not be read.
        read_ms: milliseconds that reading and decoding took.
        index, time_s: position and seconds from the start in a video or camera; None for image files.
        error: why it could not be read, in one line.
    """

    name: str
    image: Image.Image | None
    read_ms: float
    index: int | None = None
    time_s: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class FrameSource:
    """Frames that belong together: all image files of a call, one video, or one camera.

    Attributes:
        name: for messages.
        open: function that starts reading from the first frame; may be called again.
        path: the video file; None for images and cameras.
        moving: whether the frames are a video.
        images: the image files; empty for videos and cameras.
    """

    name: str
    open: Callable[[], FrameStream]
    path: Path | None = None
    moving: bool = False
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class FrameStream:
    """Frames that are being read, their count (None: unknown), and frames per second."""

    frames: Iterator[Frame]
    count: int | None
    fps: float | None = None


def find_sources(
    paths: Sequence[Path | str],
    camera: int | None = None,
    limit: int | None = None,
    options: ImageOptions | None = None,
) -> list[FrameSource]:
    """Return the sources that the arguments of a command line name: images first, then videos in order.

    A folder stands for all images in it, sorted by name; a zip or tar file (or a folder inside it) for those
    below it; a URL that fsspec knows for a folder, or an image where it ends like one. `camera`: index of a
    camera, which comes last. `limit`: maximum number of frames of every source. `options`: how image files
    become RGB.
    Raises DataError for a path that does not exist, a folder without images, and when there is nothing.
    """
    images: list[ImageFile] = []
    videos: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            images += [(_LOCAL, str(inner)) for inner in list_images(path)]
        elif _is_archive(path) or (is_image_source(os.fspath(given)) and not path.is_file()):
            images += _list_source(os.fspath(given))
        elif not path.exists():
            raise DataError(f"{path} does not exist: give images, folders of images or videos")
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            videos.append(path)
        else:
            images.append((_LOCAL, str(path)))
    sources = []
    if images:
        chosen = images[:limit]
        files = tuple(Path(source.path(name).partition("::")[0]) for source, name in chosen)
        name = chosen[0][0].path(chosen[0][1]) if len(chosen) == 1 else f"{len(chosen)} images"
        sources.append(
            FrameSource(name, lambda: FrameStream(read_images(chosen, options), len(chosen)), images=files)
        )
    sources += [FrameSource(str(p), _opener(p, limit), path=p, moving=True) for p in videos]
    if camera is not None:
        sources.append(FrameSource(f"camera {camera}", _opener(camera, limit), moving=True))
    if not sources:
        raise DataError("nothing to predict: give images, folders of images, videos or --webcam N")
    return sources


def list_images(folder: Path) -> list[Path]:
    """List the image files in `folder` (not below it), sorted by name; DataError when there is none."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not paths:
        raise DataError(
            f"folder {folder} holds no images ({' '.join(IMAGE_SUFFIXES)}); give a folder with some"
        )
    return paths


def read_image_file(path: StrPath, options: ImageOptions | None = None) -> Image.Image:
    """Read an image file as RGB, upright (EXIF); DataError when it is missing or damaged."""
    if not os.path.exists(path):
        raise DataError(f"image {os.fspath(path)} does not exist")
    return read_source_image(_LOCAL, os.fspath(path), options)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() in (".zip", ".tar") and path.is_file()


def _list_source(location: str) -> list[ImageFile]:
    """List the images of an archive or URL; DataError when there is none."""
    if "://" in location and _has_image_name(location):
        folder, _, name = location.rpartition("/")
        return [(open_image_source(folder), name)]
    source = open_image_source(location)
    names = [name for name in source.names() if _has_image_name(name)]
    if not source.is_there() or not names:
        raise DataError(f"{location} does not exist or holds no images ({' '.join(IMAGE_SUFFIXES)})")
    return [(source, name) for name in names]


def _has_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def read_images(files: Iterable[ImageFile], options: ImageOptions | None = None) -> Iterator[Frame]:
    """Read image files, upright (EXIF); one that cannot be read becomes a Frame with its error."""
    for source, name in files:
        start = time.perf_counter()
        try:
            image, error = read_source_image(source, name, options), None
        except DataError as problem:
            image, error = None, str(problem)
        yield Frame(source.path(name), image, 1000 * (time.perf_counter() - start), error=error)


def _opener(source: Path | int, limit: int | None) -> Callable[[], FrameStream]:
    def start() -> FrameStream:
        reader = VideoReader(source)
        count = reader.count if limit is None or reader.count is None else min(limit, reader.count)
        if isinstance(source, int):
            count = limit
        return FrameStream(islice(read_video(reader), limit), count, reader.fps)

    return start


def read_video(reader: VideoReader) -> Iterator[Frame]:
    """Read the frames of a video or camera, then close it; DataError when there is none."""
    with reader:
        images = iter(reader)
        index = 0
        while True:
            start = time.perf_counter()
            pixels = next(images, None)
            if pixels is None:
                break
            spent = 1000 * (time.perf_counter() - start)
            time_s = index / reader.fps
            yield Frame(reader.name, Image.fromarray(pixels), spent, index=index, time_s=time_s)
            index += 1
        if index == 0:
            raise DataError(f"video {reader.name} holds no frame that can be decoded")
