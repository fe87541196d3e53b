"""Requirements on every native operation: opcheck, layouts, dtypes, threads, 64-bit offsets.

Each is called with one ordinary and one empty set of arguments: known to torch (opcheck), the same values
from other strides and layouts, in deterministic mode (where memory that nobody wrote is full of NaN), under
autocast, compiled and exported; tensors of another rank are refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck

from maskrcnn_benchmark.utils.native import load_ops

load_ops()
OPS = torch.ops.maskrcnn_benchmark
Arguments = tuple[Any, ...]
SCALES = [0.25, 0.125]
RULE = (2, 4, 224.0)


def _noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, generator=generator)


def _boxes(count: int) -> Tensor:
    corner = _noise(count, 2).abs() * 20
    return torch.cat([corner, corner + 4 + _noise(count, 3)[:, :2].abs() * 20], dim=1)


def _rois(count: int) -> Tensor:
    return torch.cat([torch.arange(count)[:, None] % 2, _boxes(count)], dim=1)


def _maps() -> list[Tensor]:
    return [_noise(2, 3, 16, 18), _noise(2, 3, 8, 9)]


def _polygons(n: int) -> Arguments:
    square = torch.tensor([[0.0, 0], [9, 0], [9, 9], [0, 9]], dtype=torch.float64)
    return square, torch.tensor([0, 4]), torch.tensor([0, 1]), torch.zeros(n, dtype=torch.int64)


def _quadrants(n: int) -> Arguments:
    return _noise(n, 12), _noise(3, 16, 18), _boxes(n) / 3


def _images(n: int) -> Arguments:
    return _noise(2, 16, 18) > 0, torch.arange(n) % 2


CASES: dict[str, Callable[[int], Arguments]] = {
    "nms": lambda n: (_boxes(n), _noise(n), 0.5),
    "batched_nms": lambda n: (_boxes(n), _noise(n), torch.arange(n) % 2, 0.5),
    "roi_align": lambda n: (_maps()[0], _rois(n), 0.25, 2, 3, 2),
    "roi_align_backward": lambda n: (_noise(n, 3, 2, 2), _rois(n), 0.25, 2, 3, 16, 18, 2),
    "fpn_levels": lambda n: (_boxes(n), 2, 4, 4, 224.0),
    "fpn_roi_align": lambda n: (_maps(), _rois(n), SCALES, 2, 3, *RULE),
    "fpn_roi_align_backward": lambda n: (
        _noise(n, 3, 2, 2),
        _rois(n),
        SCALES,
        2,
        [16, 8],
        [18, 9],
        *RULE,
        False,
    ),
    "roi_pool": lambda n: (_maps()[0], _rois(n), 0.25, 2, 3),
    "roi_pool_backward": lambda n: (
        _noise(n, 3, 2, 2),
        _rois(n),
        torch.arange(n * 12, dtype=torch.int32).reshape(n, 3, 2, 2) % 200 - 1,
        2,
        3,
        16,
        18,
    ),
    "sigmoid_focal_loss": lambda n: (_noise(n, 4), torch.arange(n) % 6 - 1, 2.0, 0.25),
    "sigmoid_focal_loss_sum": lambda n: (_noise(n, 4), torch.arange(n) % 6 - 1, 2.0, 0.25),
    "sigmoid_focal_loss_backward": lambda n: (
        _noise(n, 4),
        _noise(n, 4),
        torch.arange(n) % 6 - 1,
        1.5,
        0.25,
    ),
    "paste_masks": lambda n: (_noise(n, 5, 5).sigmoid(), _boxes(n), 30, 34, 0.5, 1),
    "rasterize_polygons": lambda n: (*_polygons(n), _boxes(n), 40, 40, 14),
    "crop_split": lambda n: (_noise(4, 16, 18, n), _boxes(n) / 3, 2),
    "crop_split_backward": lambda n: (_noise(16, 18, n), _boxes(n) / 3, 2),
    "quadrant_masks": lambda n: (*_quadrants(n), 2),
    "quadrant_masks_backward": lambda n: (_noise(n, 16, 18), _noise(n, 16, 18), *_quadrants(n), 2),
    "quadrant_mask_loss": lambda n: (*_quadrants(n), *_images(n), 2),
    "quadrant_mask_loss_backward": lambda n: (_noise(n), *_quadrants(n), *_images(n), 2),
    "assemble_masks": lambda n: (*_quadrants(n), 2, 40, 30, 36, 34, 0.4),
}
DIFFERENTIABLE = [
    name
    for name in CASES
    if name.startswith(("roi_", "fpn_roi", "sigmoid", "crop_split"))
    or name in ("quadrant_masks", "quadrant_mask_loss")
]
each_operation = pytest.mark.parametrize("name", CASES)


def _map(function: Callable[[Tensor], Tensor], arguments: Sequence[Any]) -> Arguments:
    """The arguments with every tensor, also in lists, replaced."""
    return tuple(
        function(a)
        if isinstance(a, Tensor)
        else [function(t) for t in a]
        if isinstance(a, list) and a and isinstance(a[0], Tensor)
        else a
        for a in arguments
    )


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _assert_same(got: Any, expected: Any) -> None:
    for a, b in zip(_tensors(got), _tensors(expected), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def _spread(tensor: Tensor) -> Tensor:
    """The same values with gaps in memory."""
    wide = torch.stack((tensor, torch.full_like(tensor, 99)), dim=-1)[..., 0]
    assert tensor.numel() < 2 or not wide.is_contiguous()
    return wide


@pytest.mark.parametrize("count", [0, 5])
@each_operation
def test_opcheck(name: str, count: int) -> None:
    arguments = CASES[name](count)
    if name in DIFFERENTIABLE:
        first = arguments[0] if isinstance(arguments[0], list) else arguments[:1]
        for tensor in first:
            tensor.requires_grad_()
    opcheck(getattr(OPS, name).default, arguments)


@each_operation
def test_strides_and_layouts(name: str) -> None:
    op, arguments = getattr(OPS, name), CASES[name](5)
    expected = op(*arguments)
    _assert_same(op(*_map(_spread, arguments)), expected)
    if any(
        t.dim() == 4 for a in arguments for t in (a if isinstance(a, list) else [a]) if torch.is_tensor(t)
    ):
        last = _map(
            lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t, arguments
        )
        _assert_same(op(*last), expected)


@each_operation
def test_deterministic_mode(name: str) -> None:
    op, arguments = getattr(OPS, name), CASES[name](5)
    expected = op(*arguments)
    torch.use_deterministic_algorithms(True)
    try:
        _assert_same(op(*arguments), expected)
        for tensor in _tensors(op(*CASES[name](0))):
            assert not tensor.isnan().any()
    finally:
        torch.use_deterministic_algorithms(False)


@each_operation
def test_autocast_leaves_the_arguments_alone(name: str) -> None:
    op, arguments = getattr(OPS, name), CASES[name](5)
    expected = op(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _assert_same(op(*arguments), expected)


class _Call(nn.Module):
    """An operation with its non-tensor arguments fixed, as a module of its tensors."""

    def __init__(self, name: str, arguments: Arguments) -> None:
        super().__init__()
        self.op = getattr(OPS, name)
        self.arguments = arguments
        self.is_input = [_is_input(argument) for argument in arguments]

    def forward(self, *tensors: Any) -> Any:
        """Call the operation with the tensors (and lists of them) in their positions."""
        waiting = iter(tensors)
        filled = zip(self.is_input, self.arguments, strict=True)
        return self.op(*[next(waiting) if given else fixed for given, fixed in filled])


def _is_input(argument: Any) -> bool:
    return isinstance(argument, Tensor) or (
        isinstance(argument, list) and bool(argument) and isinstance(argument[0], Tensor)
    )


@each_operation
def test_compile_and_export(name: str) -> None:
    arguments = CASES[name](5)
    module, inputs = _Call(name, arguments), tuple(a for a in arguments if _is_input(a))
    expected = module(*inputs)
    torch._dynamo.reset()  # one function for all operations, as far as the compiler can tell
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        _assert_same(torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs), expected)
    _assert_same(torch.export.export(module, inputs).module()(*inputs), expected)


@each_operation
def test_tensors_of_another_rank_are_refused_by_name(name: str) -> None:
    op, arguments = getattr(OPS, name), CASES[name](5)
    declared = op.default._schema.arguments[: len(arguments)]
    for position, (argument, schema) in enumerate(zip(arguments, declared, strict=True)):
        if not _is_input(argument):
            continue
        for change in (lambda t: t[None], lambda t: t.flatten()[0]):
            (changed,) = _map(change, [argument])
            with pytest.raises(ValueError, match=rf"^{name}: .*{schema.name}"):
                op(*arguments[:position], changed, *arguments[position + 1 :])


def _untouched(*shape: int) -> Tensor:
    """Half-precision zeros that take memory only where they are written."""
    return torch.from_numpy(np.zeros(shape, np.float16))


def _free_gigabytes() -> float:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


@pytest.mark.slow
def test_more_than_2_to_the_31_numbers() -> None:
    """Offsets are 64 bit: the last of 2.2e9 elements is read and written."""
    if _free_gigabytes() < 4:
        pytest.skip("needs 4 GB of free memory")
    features = _untouched(1, 2, 33_000, 33_000)
    features[0, 1, -40:, -40:] = 3
    rois = torch.tensor([[0.0, 32_965, 32_965, 32_990, 32_990]])
    assert (OPS.roi_align(features, rois, 1.0, 1, 1, 2).flatten() == torch.tensor([0.0, 3])).all()
    assert (OPS.fpn_roi_align([features], rois, [1.0], 1, 1, *RULE).flatten() == torch.tensor([0.0, 3])).all()
    pooled, argmax = OPS.roi_pool(features, rois, 1.0, 1, 1)
    assert pooled.flatten().tolist() == [0, 3] and argmax[0, 1].item() == 32_965 * 33_000 + 32_965
    logits, targets = features.view(-1, 66_000), torch.zeros(33_000, dtype=torch.int64)
    targets[-1] = 66_000
    each = OPS.sigmoid_focal_loss_sum(logits[:1], targets[:1], 2.0, 0.25).item() / 66_000
    total = OPS.sigmoid_focal_loss_sum(logits, targets, 2.0, 0.25).item()
    assert total == pytest.approx(each * (logits.numel() - 1600), rel=1e-3)
    pasted = OPS.paste_masks(
        torch.ones(540, 3, 3), torch.tensor([[0.0, 0, 9, 9]]).expand(540, 4), 2000, 2000, 0.5, 0
    )
    assert pasted.numel() > 2**31 and pasted[-1, :10, :10].all() and pasted[-1].sum() == 100
    planes, corner = features.view(4, 33_000, 16_500, 1), torch.tensor([[16_400.0, 32_900, 16_500, 33_000]])
    assert OPS.crop_split(planes, corner, 2)[-1, -1].item() == 3
