"""Registration of the operations: schemas, fake kernels, derivatives, compilation, loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from maskrcnn_benchmark.layers import batched_nms, has_cuda_kernels, nms, paste_masks, roi_align
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.native import OpLibrary, load_ops

load_ops()
OPS = torch.ops.maskrcnn_benchmark
BOXES = torch.tensor([[0.0, 0, 9, 9], [1, 1, 9, 9], [20, 20, 30, 30]])
SCORES = torch.tensor([0.5, 0.6, 0.1])
ROIS = torch.cat([torch.zeros(3, 1), BOXES], dim=1)


def calls() -> list[tuple]:
    """(operation, arguments), ordinary and empty inputs."""
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    grad = torch.randn(3, 2, 2, 2, requires_grad=True)
    square = torch.tensor([[0.0, 0], [9, 0], [9, 9], [0, 9]], dtype=torch.float64)
    offsets = torch.tensor([0, 1])
    return [
        (OPS.nms, (BOXES, SCORES, 0.5)),
        (OPS.nms, (BOXES[:0], SCORES[:0], 0.5)),
        (OPS.batched_nms, (BOXES, SCORES, torch.tensor([1, 1, 2]), 0.5)),
        (OPS.roi_align, (features, ROIS, 0.25, 2, 3, 2)),
        (OPS.roi_align, (features, ROIS[:0], 0.25, 2, 3, 0)),
        (OPS.roi_align, (features.detach().bfloat16().requires_grad_(), ROIS, 0.25, 2, 3, 0)),
        (OPS.roi_align_backward, (grad, ROIS, 0.25, 1, 2, 8, 8, 2)),
        (OPS.paste_masks, (torch.rand(3, 5, 5), BOXES, 20, 24, 0.5, 1)),
        (
            OPS.rasterize_polygons,
            (square, torch.tensor([0, 4]), offsets, torch.zeros(3, dtype=torch.int64), BOXES, 40, 40, 14),
        ),
    ]


@pytest.mark.parametrize("position", range(9))
def test_opcheck(position: int) -> None:
    op, arguments = calls()[position]
    opcheck(op.default, arguments)


def test_compile_roi_align_with_dynamic_sizes() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def pooled(x: Tensor, rois: Tensor) -> Tensor:
        return roi_align(x, rois, (3, 3), 0.5, 2) * 2

    for count, side in ((3, 8), (2, 11)):
        x = torch.randn(1, 2, side, side, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        out, expected = pooled(x, ROIS[:count]), roi_align(y, ROIS[:count], (3, 3), 0.5, 2) * 2
        torch.testing.assert_close(out, expected)
        out.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad)


def test_compile_nms_and_pasting() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def detect(boxes: Tensor, scores: Tensor, labels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        keep = nms(boxes, scores, 0.5)
        again = batched_nms(boxes[keep], scores[keep], labels[keep], 0.5)
        return keep, paste_masks(masks[keep][again], boxes[keep][again], 40, 40)

    arguments = (BOXES, SCORES, torch.tensor([1, 1, 2]), torch.rand(3, 7, 7))
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        keep, pasted = detect(*arguments)
    assert keep.tolist() == [1, 2]
    assert torch.equal(pasted, paste_masks(arguments[3][1:], BOXES[1:], 40, 40))


def test_compile_frozen_batch_norm() -> None:
    layer = FrozenBatchNorm2d(3)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


def test_meta_tensors_need_no_kernel() -> None:
    assert roi_align(torch.empty(2, 3, 8, 8, device="meta"), ROIS.to("meta"), (2, 2), 1.0, 2).shape == (
        3,
        3,
        2,
        2,
    )
    assert paste_masks(torch.empty(3, 9, 9, device="meta"), BOXES.to("meta"), 50, 60).shape == (3, 50, 60)


def test_registrations_wait_for_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = OpLibrary(tmp_path)
    (tmp_path / "_C.abi3.so").touch()
    loaded: list[str] = []
    monkeypatch.setattr(torch.ops, "load_library", lambda name: loaded.append("library"))
    library.register(lambda: loaded.append("early"))
    assert loaded == []
    library.load()
    library.load()
    library.register(lambda: loaded.append("late"))
    assert loaded == ["library", "early", "late"]


def test_missing_library_names_the_build_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not built .* pip install --no-build-isolation -e"):
        OpLibrary(tmp_path).load()


def test_broken_library_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "_C.abi3.so").write_bytes(b"not a library")
    with pytest.raises(UsageError, match=r"_C.abi3.so do not load with torch .* rebuild them with"):
        OpLibrary(tmp_path).load()


def test_has_cuda_kernels_is_a_fact_of_the_build() -> None:
    assert has_cuda_kernels() in (True, False)
