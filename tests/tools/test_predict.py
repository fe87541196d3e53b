"""tools/predict.py on the command line, with a tiny model of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.train_and_test import build_seeded_model
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.utils.errors import DataError, UsageError
from maskrcnn_benchmark.utils.video import VideoReader, VideoWriter

Run = Callable[..., int | None]
NAMES = ["__background__", *(f"thing {i}" for i in range(1, 81))]


@pytest.fixture(scope="module")
def model(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str, Path]:
    """The options that name a configuration and a checkpoint with class names and category ids."""
    config = project_root / "configs" / "tiny" / "mask_rcnn_R_10_FPN_gn.yaml"
    weights = tmp_path_factory.mktemp("model") / "weights.pth"
    state = build_seeded_model(load_config(config)).state_dict()
    ids = [0, *range(1001, 1081)]
    torch.save({"model": state, "classes": NAMES, "label_to_category": ids}, weights)
    return "--config-file", config, "--weights", weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them broken."""
    source = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for name in ("b.png", "a.png", "broken.png"):
        Image.fromarray(source.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(images / name)
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:300])
    return images


def test_a_folder_with_a_broken_image(model: tuple, folder: Path, tmp_path: Path, tool: Callable) -> None:
    out, results = tmp_path / "out", tmp_path / "r.json"
    arguments = (*model, "--threshold", 0, "--out", out, "--json", results, folder)
    done = tool("predict", *arguments, "--opts", "MODEL.DEVICE", "cpu", check=False)
    assert done.returncode == 1, done.stderr
    assert "broken.png cannot be read" in done.stdout and "3/3 (100.0 %)" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "b.png"]
    assert Image.open(out / "a.png").size == (90, 60)
    content = json.loads(results.read_text())
    assert [Path(image["file_name"]).name for image in content["images"]] == ["a.png", "b.png", "broken.png"]
    assert set(content["images"][0]["milliseconds"]) == {"read", "transform", "detect", "draw"}
    assert "error" in content["images"][2]
    found = Detections.from_json(content["annotations"])
    assert len(found) == 40 and found.rles is not None and (found.rles.sizes == [60, 90]).all()
    by_id = {c["id"]: c["name"] for c in content["categories"]}
    assert len(by_id) == 80 and min(by_id) == 1001
    assert all(a["category_name"] == by_id[a["category_id"]] for a in content["annotations"])


def test_the_threshold_holds_for_the_file_too(
    model: tuple, folder: Path, tmp_path: Path, run_tool: Run
) -> None:
    scores: list[list[float]] = []
    for _ in range(2):
        threshold = scores[0][9] - 1e-9 if scores else 0.0  # the second time the ten best
        options = ("--json", tmp_path / "r.json", "--no-draw", "--threshold", threshold)
        assert run_tool("predict", *model, *options, folder / "a.png", "--opts", "MODEL.DEVICE", "cpu") == 0
        content = json.loads((tmp_path / "r.json").read_text())
        scores.append([a["score"] for a in content["annotations"]])
    assert len(scores[0]) == 20 and scores[1] == scores[0][:10]


def test_a_video(model: tuple, tmp_path: Path, run_tool: Run) -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless (extra: video) is not installed")
    source = np.random.default_rng(0)
    with VideoWriter(tmp_path / "clip.mp4", (96, 64), 8.0) as video:
        for _ in range(5):
            video.write(source.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    out = tmp_path / "out"
    options = ("--threshold", 0, "--out", out, "--json", out / "r.json")
    code = run_tool("predict", *model, *options, tmp_path / "clip.mp4", "--opts", "MODEL.DEVICE", "cpu")
    assert code == 0 and sorted(p.name for p in out.iterdir()) == ["clip.mp4", "r.json"]
    with VideoReader(out / "clip.mp4") as drawn:
        assert (drawn.fps, drawn.count) == (8.0, 5)
        assert next(iter(drawn)).shape == (64, 96, 3)
    images = json.loads((out / "r.json").read_text())["images"]
    assert [image["frame"] for image in images] == [0, 1, 2, 3, 4]
    assert images[2]["time_s"] == 0.25


def test_the_table_of_stages(
    model: tuple, folder: Path, tmp_path: Path, run_tool: Run, capsys: pytest.CaptureFixture
) -> None:
    options = ("--fps", "--warmup", 1, "--repeat", 2, "--json", tmp_path / "fps.json", folder / "a.png")
    assert run_tool("predict", *model[:2], *options, "--opts", "MODEL.DEVICE", "cpu") == 0
    printed = capsys.readouterr().out
    assert "random weights" in printed and "read, detect, draw" in printed and "median ms" in printed
    content = json.loads((tmp_path / "fps.json").read_text())
    assert content["picture"] == "90x60" and content["pictures"] == 2
    assert {"backbone", "mask head", "draw"} <= set(content["stages"])
    total = content["totals"]["read, detect, draw"]
    assert total["fps"] == pytest.approx(1000 / total["median_ms"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no output is requested"),
        (("--out", "out", "--no-draw"), "--no-draw excludes"),
        (("--out", "out", "--compile", "--cuda-graphs"), "choose one"),
        (("--out", "out", "--cuda-graphs"), "--cuda-graphs needs a CUDA device"),
        (("--out", "out", "--limit", 0), "--limit must be at least 1"),
    ],
)
def test_combinations_that_make_no_sense(
    model: tuple, folder: Path, run_tool: Run, options: tuple, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_tool("predict", *model, *options, folder, "--opts", "MODEL.DEVICE", "cpu")


def test_an_empty_folder_and_missing_weights(model: tuple, tmp_path: Path, run_tool: Run) -> None:
    with pytest.raises(DataError, match="holds no images"):
        run_tool("predict", *model, "--out", tmp_path / "out", tmp_path)
    with pytest.raises(UsageError, match="--weights FILE is missing"):
        run_tool("predict", *model[:2], "--out", tmp_path / "out", tmp_path)
