"""Video files and cameras; most tests need the optional OpenCV."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_benchmark.utils.errors import DataError, UsageError
from maskrcnn_benchmark.utils.video import VideoReader, VideoWriter, Window, require_cv2


@pytest.fixture
def opencv() -> None:
    """Skips the test where OpenCV is missing."""
    pytest.importorskip("cv2", reason="opencv-python-headless (extra: video) is not installed")


def write(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> None:
    """A video whose red channel holds the frame index."""
    with VideoWriter(path, size, 12.0) as video:
        for number in range(frames):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[..., 0] = 50 * number
            video.write(pixels)


@pytest.mark.usefixtures("opencv")
def test_frames_come_back_in_order_and_colour(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 5)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert (video.fps, video.count) == (12.0, 5)
        frames = list(video)
    assert [f.shape for f in frames] == [(48, 64, 3)] * 5 and frames[0].dtype == np.uint8
    for number, frame in enumerate(frames):
        red, green, blue = frame.reshape(-1, 3).mean(axis=0)
        assert abs(red - 50 * number) < 6 and max(green, blue) < 12


@pytest.mark.usefixtures("opencv")
def test_odd_sizes_lose_at_most_a_line(tmp_path: Path) -> None:
    write(tmp_path / "odd.mp4", 2, (65, 49))
    with VideoReader(tmp_path / "odd.mp4") as video:
        height, width = next(iter(video)).shape[:2]
    assert height in (48, 49) and width in (64, 65)


@pytest.mark.usefixtures("opencv")
def test_what_cannot_be_opened(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(DataError, match=r"broken\.mp4 cannot be decoded"):
        VideoReader(tmp_path / "broken.mp4")
    with pytest.raises(DataError, match=r"none\.mp4 does not exist"):
        VideoReader(tmp_path / "none.mp4")
    with pytest.raises(UsageError, match="camera 99 cannot be opened"):
        VideoReader(99)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("opencv")
def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (64, 48), 5.0) as video, pytest.raises(ValueError, match="shape"):
        video.write(np.zeros((64, 48, 3), np.uint8))


def test_no_opencv_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for call in (require_cv2, lambda: VideoReader(0), lambda: Window("title")):
        with pytest.raises(UsageError, match="pip install opencv-python-headless"):
            call()
