"""Files of drawn images and of results: names, refusals, and that they read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.engine import outputs
from maskrcnn_benchmark.engine.frames import Frame, find_sources
from maskrcnn_benchmark.engine.outputs import (
    ImageFrameWriter,
    PredictionFile,
    VideoFrameWriter,
    open_frame_writer,
)
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.utils.errors import DataError, UsageError


def frame(name: str = "a.jpg", number: int | None = None) -> Frame:
    """A black image of 30 x 20."""
    time_s = None if number is None else number / 10
    return Frame(name, Image.new("RGB", (30, 20)), 1.5, index=number, time_s=time_s)


def found(masks: bool = True, keypoints: bool = False) -> BoxList:
    """Two objects on 30 x 20."""
    boxes = BoxList([[1.0, 2.0, 10.0, 12.0], [5.0, 5.0, 29.0, 19.0]], (30, 20))
    boxes.add_field("scores", torch.tensor([0.9, 0.6]))
    boxes.add_field("labels", torch.tensor([2, 1]))
    if masks:
        pixels = torch.zeros(2, 20, 30, dtype=torch.bool)
        pixels[0, 3:10, 2:9] = True
        boxes.add_field("masks", pixels)
    if keypoints:
        boxes.add_field("keypoints", Keypoints(torch.ones(2, 3, 3), (30, 20), (0, 1, 2)))
    return boxes


def test_no_two_images_share_a_file(tmp_path: Path) -> None:
    images = [Path("x/a.jpg"), Path("x/a.png"), Path("y/a.jpg"), Path("y/a_2.jpg")]
    files = ImageFrameWriter(tmp_path, images)
    targets = [files.write(frame(str(p)), Image.new("RGB", (3, 2), (i, 0, 0))) for i, p in enumerate(images)]
    assert [t.name for t in targets] == ["a.png", "a_2.png", "a_3.png", "a_2_2.png"]
    assert [Image.open(t).getpixel((0, 0))[0] for t in targets] == [0, 1, 2, 3]


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    (tmp_path / "v.mp4").touch()
    for source in find_sources([tmp_path / "a.png", tmp_path / "v.mp4"]):
        with pytest.raises(UsageError, match="would replace the (image|video)"):
            open_frame_writer(source, tmp_path, None)
        open_frame_writer(source, tmp_path / "out", None)


def test_a_video_without_encoder_becomes_numbered_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_encoder(*arguments: object) -> None:
        raise DataError("no mp4v encoder")

    monkeypatch.setattr(outputs, "VideoWriter", no_encoder)
    video = VideoFrameWriter(tmp_path, "clip", 10.0)
    with caplog.at_level("WARNING", logger="maskrcnn_benchmark"):
        targets = [video.write(frame(number=n), Image.new("RGB", (30, 20))) for n in range(2)]
    video.close()
    assert [t.relative_to(tmp_path).as_posix() for t in targets] == ["clip/000000.png", "clip/000001.png"]
    assert "numbered images" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip"]


def test_a_video_is_whole_or_absent(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless (extra: video) is not installed")
    VideoFrameWriter(tmp_path, "none", 10.0).close()
    video = VideoFrameWriter(tmp_path, "clip", 10.0)
    video.write(frame(number=0), Image.new("RGB", (64, 48)))
    assert not (tmp_path / "clip.mp4").exists()
    video.close()
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_results_read_back(tmp_path: Path) -> None:
    results = PredictionFile(["__background__", "cup", "spoon"], [0, 17, 4])
    results.add(frame("a.jpg"), found(), {"read": 1.5, "detect": 20.12345})
    results.add(Frame("bad.jpg", None, 0.1, error="image bad.jpg cannot be read"), None, {})
    results.add(frame("v.mp4", 3), found()[:0], {"detect": 1.0})
    results.write(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["categories"] == [{"id": 17, "name": "cup"}, {"id": 4, "name": "spoon"}]
    first, bad, third = content["images"]
    assert first == {
        "id": 1,
        "file_name": "a.jpg",
        "width": 30,
        "height": 20,
        "milliseconds": {"read": 1.5, "detect": 20.123},
    }
    assert bad == {"id": 2, "file_name": "bad.jpg", "error": "image bad.jpg cannot be read"}
    assert (third["frame"], third["time_s"]) == (3, 0.3)
    assert [(a["image_id"], a["category_id"], a["category_name"]) for a in content["annotations"]] == [
        (1, 4, "spoon"),
        (1, 17, "cup"),
    ]
    assert content["annotations"][0]["bbox"] == [1.0, 2.0, 10.0, 11.0]
    read = Detections.from_json(content["annotations"])
    assert read.scores == pytest.approx([0.9, 0.6])
    masks = [mask_utils.decode(rle) for rle in read.rles or ()]
    assert (masks[0] == found().get_field("masks")[0].numpy()).all() and not masks[1].any()


def test_results_of_boxes_and_keypoints() -> None:
    results = PredictionFile(["0", "1", "2"], [0, 1, 2])
    results.add(frame(), found(masks=False, keypoints=True), {})
    assert all("segmentation" not in a and a["keypoints"] == [1.0] * 9 for a in results.annotations)
    assert np.isfinite([a["score"] for a in results.annotations]).all()
