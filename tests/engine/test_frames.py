"""What a command line names, and the frames that come of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.engine.frames import FrameSource, find_sources
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.video import VideoWriter


def image(path: Path) -> Path:
    """A small image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    return path


def names(source: FrameSource) -> list[str]:
    """File names of a source's frames."""
    return [Path(frame.name).name for frame in source.open().frames]


def test_folders_are_sorted_and_only_their_images_count(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.bmp"):
        image(tmp_path / name)
    image(tmp_path / "below" / "d.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "dir.png").mkdir()
    (single,) = find_sources([tmp_path])
    assert names(single) == ["a.JPG", "b.png", "c.bmp"] and single.open().count == 3
    assert names(single) == ["a.JPG", "b.png", "c.bmp"]  # again from the start
    (both,) = find_sources([tmp_path / "below", tmp_path / "c.bmp"])
    assert names(both) == ["d.png", "c.bmp"]
    assert names(find_sources([tmp_path], limit=2)[0]) == ["a.JPG", "b.png"]


def test_a_broken_image_does_not_stop_the_others(tmp_path: Path) -> None:
    good = image(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:40])
    bad, fine = find_sources([tmp_path])[0].open().frames
    assert bad.image is None and bad.error is not None and "bad.png cannot be read" in bad.error
    assert fine.image is not None and fine.image.size == (6, 4) and fine.error is None and fine.read_ms > 0


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        find_sources([tmp_path])
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        find_sources([image(tmp_path / "a.png"), tmp_path / "none.png"])
    with pytest.raises(DataError, match="nothing to predict"):
        find_sources([])


def test_images_in_archives_and_at_urls(tmp_path: Path) -> None:
    """Those below the location, in order; damaged ones are reported."""
    data = image(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("val/b.png", "val/deep/c.png", "train/a.png", "val/notes.txt"):
            archive.writestr(name, data)
        archive.writestr("val/bad.png", data[:40])
    (whole,) = find_sources([tmp_path / "all.zip"])
    assert names(whole) == ["a.png", "b.png", "bad.png", "c.png"]
    first, _, bad, _ = whole.open().frames
    assert first.name == f"{tmp_path}/all.zip/train/a.png" and first.image is not None
    assert bad.image is None and "all.zip/val/bad.png cannot be read" in str(bad.error)
    (part,) = find_sources([f"{tmp_path}/all.zip/val", tmp_path / "a.png"])
    assert names(part) == ["b.png", "bad.png", "c.png", "a.png"]
    (chained,) = find_sources([f"zip://val/deep::{tmp_path}/all.zip"])
    assert [path.stem for path in chained.images] == ["c"]
    assert next(chained.open().frames).image is not None
    (single,) = find_sources([f"file://{tmp_path}/a.png"])
    assert next(single.open().frames).image is not None
    with pytest.raises(DataError, match="all.zip has no folder test"):
        find_sources([f"{tmp_path}/all.zip/test"])
    with pytest.raises(DataError, match=r"none\.zip/val does not exist or holds no images"):
        find_sources([f"{tmp_path}/none.zip/val"])


def test_images_are_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    (frame,) = find_sources([tmp_path])[0].open().frames
    assert frame.image is not None and frame.image.size == (4, 6)


def test_videos_and_cameras_follow_the_images(tmp_path: Path) -> None:
    (tmp_path / "v.MP4").touch()
    sources = find_sources([tmp_path / "v.MP4", image(tmp_path / "a.png")], camera=3)
    assert [(Path(s.name).name, s.moving) for s in sources] == [
        ("a.png", False),
        ("v.MP4", True),
        ("camera 3", True),
    ]


def test_frames_of_a_video(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless (extra: video) is not installed")
    path = tmp_path / "v.mp4"
    with VideoWriter(path, (64, 48), 10.0) as video:
        for _ in range(5):
            video.write(np.zeros((48, 64, 3), np.uint8))
    (source,) = find_sources([path])
    for _ in range(2):
        opened = source.open()
        assert (opened.count, opened.fps) == (5, 10.0)
        frames = list(opened.frames)
        assert [f.index for f in frames] == [0, 1, 2, 3, 4]
        assert [f.time_s for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
        assert all(f.image is not None and f.image.size == (64, 48) for f in frames)
    (short,) = find_sources([path], limit=2)
    assert len(list(short.open().frames)) == 2 and short.open().count == 2
