"""CUDA graphs of backbone and head: the results of the ordinary pass, for every size and precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.acceleration import capture_cuda_graphs
from maskrcnn_benchmark.engine.fps import measure_fps
from maskrcnn_benchmark.engine.frames import find_sources
from maskrcnn_benchmark.engine.predictor import Predictor

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def tiny(project_root: Path, name: str, dtype: str) -> Predictor:
    """The predictor of a tiny configuration with random weights on the GPU."""
    path = project_root / "configs" / "tiny" / f"{name}.yaml"
    return Predictor.from_config(load_config(path, ["MODEL.DEVICE", "cuda", "DTYPE", dtype]), None)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "name",
    ["mask_rcnn_R_10_FPN_gn", "mask_rcnn_mdconv_R_10_FPN_gn", "retinanet_R_18_FPN_gn", "sipmask_plusplus"],
)
def test_graphs_give_the_same_answers(name: str, dtype: str, project_root: Path) -> None:
    plain, graphed = tiny(project_root, name, dtype), tiny(project_root, name, dtype)
    capture_cuda_graphs(graphed)
    source = np.random.default_rng(0)
    for size in ((300, 400), (300, 400), (260, 420), (300, 400)):
        image = Image.fromarray(source.integers(0, 256, (*size, 3), dtype=np.uint8))
        expected, detections = plain(image), graphed(image)
        assert len(detections) == len(expected)
        torch.testing.assert_close(detections.bbox, expected.bbox, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(
            detections.get_field("scores"), expected.get_field("scores"), rtol=1e-3, atol=1e-3
        )


def test_stages_are_clocked_on_the_gpu(project_root: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(tmp_path / "a.png")
    predictor = tiny(project_root, "mask_rcnn_R_10_FPN_gn", "float16")
    capture_cuda_graphs(predictor)
    report = measure_fps(predictor, find_sources([tmp_path])[0], None, warmup=2, repeat=3)
    assert report.facts["device"] == torch.cuda.get_device_name()
    assert {"backbone", "proposal head", "mask head"} <= set(report.stages)
