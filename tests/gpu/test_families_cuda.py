"""Every model family on a GPU: one iteration in three precisions, inference, and both against the CPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.solver.optimizer import build_optimizer
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.structures.masks import SegmentationMask
from maskrcnn_benchmark.structures.model_input import ModelInput

pytestmark = pytest.mark.gpu
TINY = Path(__file__).resolve().parents[2] / "configs" / "tiny"
NAMES = sorted(path.stem for path in TINY.glob("*.yaml") if not path.stem.endswith("_tta"))


def side_of(name: str) -> int:
    """Pixels of the images: mask scores need 256."""
    return 256 if name == "sipmask_plusplus" else 64


@pytest.fixture(autouse=True)
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def make_model(name: str, device: torch.device) -> tuple[CfgNode, nn.Module]:
    """A tiny model with the same weights on every device, whose boxes have some size."""
    cfg = load_config(TINY / f"{name}.yaml")
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    if cfg.MODEL.FCOS_ON or cfg.MODEL.SIPMASK_ON:
        with torch.no_grad():
            model.get_submodule("rpn.head").bbox_pred.bias.fill_(1.5)
    return cfg, model.to(device)


def make_target(device: torch.device, keypoints: int, side: int) -> BoxList:
    """Two objects of class 1 with square masks."""
    boxes = torch.tensor([[0.1, 0.12, 0.5, 0.55], [0.4, 0.35, 0.9, 0.95]]) * side
    target = BoxList(boxes, (side, side))
    target.add_field("labels", torch.tensor([1, 1]))
    outlines = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
    target.add_field("masks", SegmentationMask(outlines, (side, side)))
    centres = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, torch.full((2, 1), 2.0)), dim=1)
    points = centres[:, None].repeat(1, keypoints, 1)
    target.add_field("keypoints", Keypoints(points, (side, side), range(keypoints)))
    return target.to(device)


def images(device: torch.device, side: int) -> ImageList:
    """Two images of noise."""
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    return ImageList(noise.to(device), [(side, side)] * 2)


def training_step(name: str, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Losses of one iteration; gradients and new weights must be finite."""
    cfg, model = make_model(name, device)
    keypoints, side = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES, side_of(name)
    targets = [make_target(device, keypoints, side) for _ in range(2)]
    optimizer = build_optimizer(cfg, model.train())
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        losses = model(ModelInput(images(device, side), targets, seeds=[1, 2]))
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    return {key: float(value.detach()) for key, value in losses.items()}


def detect(name: str, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Boxes and scores per image."""
    _, model = make_model(name, device)
    with torch.no_grad():
        detections = model.eval()(images(device, side_of(name)))
    field = "scores" if detections[0].has_field("scores") else "objectness"
    return [(boxlist.bbox.cpu(), boxlist.get_field(field).float().cpu()) for boxlist in detections]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_training_step(name: str, dtype: torch.dtype) -> None:
    losses = training_step(name, torch.device("cuda"), dtype)
    expected = training_step(name, torch.device("cpu"), torch.float32)
    assert losses.keys() == expected.keys() and all(map(math.isfinite, losses.values()))
    one_stage = name.startswith(("fcos", "sipmask", "retinanet"))  # nothing is sampled there
    if one_stage:
        close = 1e-3 if dtype == torch.float32 else 0.05
        assert losses == pytest.approx(expected, rel=close, abs=close)


@pytest.mark.parametrize("name", NAMES)
def test_detections(name: str) -> None:
    both = detect(name, torch.device("cuda")), detect(name, torch.device("cpu"))
    for (boxes, scores), (expected, expected_scores) in zip(*both, strict=True):
        assert abs(len(boxes) - len(expected)) <= 0.05 * max(len(expected), 20)
        count = min(len(boxes), len(expected))
        torch.testing.assert_close(
            scores.sort(descending=True).values[:count],
            expected_scores.sort(descending=True).values[:count],
            rtol=1e-2,
            atol=1e-3,
        )
