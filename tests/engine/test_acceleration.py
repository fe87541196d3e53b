"""Compiled and captured forward passes: equal results, and errors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine import acceleration
from maskrcnn_benchmark.engine.acceleration import (
    GraphedForward,
    capture_cuda_graphs,
    compile_dense_parts,
    dense_parts,
)
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.utils.errors import UsageError


def tiny(project_root: Path, name: str) -> Predictor:
    """The predictor of a tiny configuration with random weights."""
    cfg = load_config(project_root / "configs" / "tiny" / f"{name}.yaml", ["MODEL.DEVICE", "cpu"])
    return Predictor.from_config(cfg, None)


class FakeGraphs(GraphedForward):
    """Replays by calling again with the captured tensors: what a CUDA graph does, on any device."""

    captured = 0

    def _capture(self, tensors: Any, single: bool, half: Any) -> Any:
        self.captured += 1
        inputs = [t.clone() for t in tensors]
        output = self._call(inputs[0] if single else inputs)

        def replay() -> None:
            output.copy_(self._call(inputs[0] if single else inputs))

        return acceleration._CapturedGraph(SimpleNamespace(replay=replay), inputs, output)  # type: ignore[arg-type]


def test_parts_that_depend_on_the_image_size_alone(project_root: Path) -> None:
    two, one = (tiny(project_root, n).model for n in ("mask_rcnn_R_10_FPN_gn", "retinanet_R_18_FPN_gn"))
    assert dense_parts(two) == [two.backbone, two.rpn.head]
    assert dense_parts(one) == [one.backbone, one.rpn]
    with pytest.raises(UsageError, match="Identity has no parts"):
        dense_parts(nn.Identity())


def test_graphs_need_a_gpu(project_root: Path) -> None:
    with pytest.raises(UsageError, match="--cuda-graphs needs a CUDA device, and MODEL.DEVICE is cpu"):
        capture_cuda_graphs(tiny(project_root, "mask_rcnn_R_10_FPN_gn"))


def test_graphs_and_several_views_do_not_go_together(project_root: Path) -> None:
    predictor = tiny(project_root, "mask_rcnn_R_10_FPN_gn_tta")
    predictor.device = torch.device("cuda")
    with pytest.raises(UsageError, match=r"TEST\.BBOX_AUG\.ENABLED"):
        capture_cuda_graphs(predictor)


def test_one_capture_per_shape_and_unchanged_inputs() -> None:
    graphs = FakeGraphs(lambda x: 2 * x)
    first = torch.ones(1, 3, 4, 4)
    assert torch.equal(graphs(first), 2 * torch.ones(1, 3, 4, 4))
    assert torch.equal(graphs(torch.full((1, 3, 4, 4), 5.0)), torch.full((1, 3, 4, 4), 10.0))
    assert torch.equal(first, torch.ones(1, 3, 4, 4)) and graphs.captured == 1
    graphs(torch.ones(1, 3, 4, 6))
    graphs(first.contiguous(memory_format=torch.channels_last))
    assert graphs.captured == 3


def test_lists_of_maps() -> None:
    def total(maps: list[Tensor]) -> Tensor:
        return maps[0].sum() + maps[1].sum()

    graphs = FakeGraphs(total)
    for value in (1.0, 3.0):
        assert float(graphs([torch.full((2, 2), value), torch.full((1,), value)])) == 5 * value
    assert graphs.captured == 1


def test_only_the_latest_shapes_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    graphs = FakeGraphs(lambda x: 2 * x)
    with caplog.at_level("WARNING", logger="maskrcnn_benchmark"):
        for width in range(1, acceleration.MAX_SHAPES + 2):
            graphs(torch.ones(1, width))
    assert "more than 8 sizes" in caplog.text
    assert graphs.captured == acceleration.MAX_SHAPES + 1
    graphs(torch.ones(1, 2))
    assert graphs.captured == acceleration.MAX_SHAPES + 1  # still there
    graphs(torch.ones(1, 1))
    assert graphs.captured == acceleration.MAX_SHAPES + 2


@pytest.mark.slow
def test_compiled_answers_are_the_same(project_root: Path) -> None:
    plain, compiled = (tiny(project_root, "mask_rcnn_R_10_FPN_gn") for _ in range(2))
    compile_dense_parts(compiled)
    source = np.random.default_rng(0)
    for size in ((150, 200), (150, 200), (120, 260)):
        image = Image.fromarray(source.integers(0, 256, (*size, 3), dtype=np.uint8))
        expected, found = plain(image), compiled(image)
        assert len(found) == len(expected)
        torch.testing.assert_close(found.bbox, expected.bbox, rtol=1e-3, atol=1e-2)
