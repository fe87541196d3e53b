"""PredictionRun: counts, inputs that cannot be read, interruption."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.engine.frames import Frame, FrameSource, FrameStream, find_sources
from maskrcnn_benchmark.engine.outputs import PredictionFile
from maskrcnn_benchmark.engine.prediction_run import PredictionRun, detect_frames
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList


class Brightness(nn.Module):
    """Finds one object per image, whose score is the image's brightness."""

    def forward(self, images: ImageList) -> list[BoxList]:
        """One box."""
        height, width = images.image_sizes[0]
        found = BoxList([[0.0, 0.0, width - 1.0, height - 1.0]], (width, height))
        found.add_field("scores", images.tensors[0, 0].mean().reshape(1) / 255)
        found.add_field("labels", torch.ones(1, dtype=torch.int64))
        return [found]


@pytest.fixture
def predictor() -> Predictor:
    """Sees images as they are: 0..255."""
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 32, 64
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = [0.0] * 3, [1.0] * 3
    return Predictor(Brightness(), transform=build_transforms(cfg, train=False), device=torch.device("cpu"))


def images(folder: Path, count: int) -> Path:
    """Images that get brighter."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.full((40, 60, 3), 25 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def stamp(image: Image.Image, detections: BoxList) -> Image.Image:
    """A drawing that is easy to recognise."""
    drawn = image.copy()
    drawn.putpixel((0, 0), (255, len(detections), 0))
    return drawn


def moving(frames: Iterator[Frame], name: str = "camera 0", path: Path | None = None) -> FrameSource:
    """A source of given frames."""
    return FrameSource(name, lambda: FrameStream(frames, None, 10.0), path=path, moving=True)


def camera(count: int, error: BaseException | None = None) -> Iterator[Frame]:
    """Frames, and then an error."""
    for number in range(count):
        yield Frame("camera 0", Image.new("RGB", (60, 40)), 0.1, index=number, time_s=number / 10)
    if error is not None:
        raise error


def no_thread_left() -> bool:
    return not any(thread.name == "read ahead" for thread in threading.enumerate())


def test_detections_equal_those_of_single_calls(predictor: Predictor, tmp_path: Path) -> None:
    source = find_sources([images(tmp_path, 6)])[0]
    with detect_frames(predictor, source.open().frames) as seen:
        per_frame = list(seen)
    assert len(per_frame) == 6
    for result in per_frame:
        assert result.frame.image is not None and result.detections is not None
        alone = predictor(result.frame.image)
        assert result.detections.size == (60, 40)
        assert torch.equal(result.detections.get_field("scores"), alone.get_field("scores"))
        assert set(result.milliseconds) == {"read", "transform", "detect"}
    scores = [float(a.detections.get_field("scores")) for a in per_frame if a.detections is not None]
    assert scores == pytest.approx([25 * n / 255 for n in range(6)], abs=1e-3)


def test_low_scores_are_dropped(predictor: Predictor, tmp_path: Path) -> None:
    predictor.min_score = 0.3
    summary = PredictionRun(predictor).run(find_sources([images(tmp_path, 6)]))
    assert (summary.frames, summary.objects, summary.exit_code()) == (6, 2, 0)


def test_broken_images_are_reported_and_the_others_drawn(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = images(tmp_path / "in", 3)
    (folder / "1.png").write_bytes(b"no image")
    results = PredictionFile(["0", "1"], [0, 1])
    with caplog.at_level("INFO", logger="maskrcnn_benchmark"):
        run = PredictionRun(predictor, draw=stamp, out=tmp_path / "out", results=results)
        summary = run.run(find_sources([folder]))
    assert (summary.frames, summary.unreadable, summary.exit_code()) == (2, 1, 1)
    assert "1.png cannot be read" in caplog.text and "3/3 (100.0 %)" in caplog.text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "2.png"]
    assert Image.open(tmp_path / "out" / "0.png").getpixel((0, 0)) == (255, 1, 0)
    assert ["error" in image for image in results.images] == [False, True, False]
    assert "draw" in results.images[0]["milliseconds"] and len(results.annotations) == 2


def test_a_broken_video_does_not_stop_the_others(predictor: Predictor, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless (extra: video) is not installed")
    (tmp_path / "v.mp4").write_bytes(b"no video")
    summary = PredictionRun(predictor).run([*find_sources([tmp_path / "v.mp4"]), moving(camera(2))])
    assert (summary.frames, summary.unreadable) == (2, 1)


def test_a_defect_in_the_reading_thread_comes_through(predictor: Predictor) -> None:
    with pytest.raises(RuntimeError, match="defect"):
        PredictionRun(predictor).run([moving(camera(1, RuntimeError("defect")))])
    assert no_thread_left()


@pytest.mark.parametrize(("path", "code"), [(None, 0), (Path("v.mp4"), 130)])
def test_ctrl_c_keeps_what_is_done(
    predictor: Predictor, path: Path | None, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    results = PredictionFile(["0", "1"], [0, 1])
    drawn: list[int] = []

    def draw(image: Image.Image, detections: BoxList) -> Image.Image:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(len(detections))
        return image

    run = PredictionRun(predictor, draw=draw, results=results)
    with caplog.at_level("INFO", logger="maskrcnn_benchmark"):
        summary = run.run([moving(camera(50), path=path), moving(camera(1))])
    assert (summary.frames, summary.exit_code(), len(results.images)) == (2, code, 2)
    assert "interrupted" in caplog.text and no_thread_left()


def test_closing_the_window_ends_a_source(predictor: Predictor) -> None:
    class Closing:
        shown = 0

        def show(self, frame: np.ndarray) -> bool:
            self.shown += 1
            return self.shown < 3

    window = Closing()
    summary = PredictionRun(predictor, draw=stamp, window=window).run([moving(camera(50))])  # type: ignore[arg-type]
    assert summary.frames == 3 and no_thread_left()


def test_a_video_that_ends_early_is_told(predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    source = FrameSource("v.mp4", lambda: FrameStream(camera(2), 9, 10.0), path=Path("v.mp4"), moving=True)
    with caplog.at_level("INFO", logger="maskrcnn_benchmark"):
        PredictionRun(predictor).run([source])
    assert "only 2 of 9 announced frames" in caplog.text
