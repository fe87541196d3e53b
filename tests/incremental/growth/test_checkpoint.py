"""Growing a checkpoint: old parameters stay to the bit, new ones have the right moments; errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.incremental.growth.checkpoint import grow_checkpoint, grow_state
from maskrcnn_benchmark.modeling.conv import kaiming_normal_init
from maskrcnn_benchmark.utils.errors import CheckpointError

BOX = "roi_heads.box.predictor"


def state(rows: int, width: int = 1024, prefix: str = "") -> dict[str, Tensor]:
    """The parameters that matter, and two that do not."""
    made = torch.Generator().manual_seed(1)
    tensors = {
        f"{BOX}.cls_score.weight": torch.randn(rows, width, generator=made),
        f"{BOX}.bbox_pred.weight": torch.randn(4 * rows, width, generator=made),
        f"{BOX}.bbox_pred.bias": torch.randn(4 * rows, generator=made),
        f"{BOX}.scale_cls": torch.tensor([9.5]),
        "roi_heads.bbox2mask.0.weight": torch.randn(4, 4, generator=made),
    }
    return {prefix + name: tensor for name, tensor in tensors.items()}


def grow(old: dict[str, Tensor], before: int, after: int, **more: Any) -> dict[str, Tensor]:
    """Growth with the published std."""
    source = torch.Generator().manual_seed(0)
    return grow_state(old, before, after, cls_std=0.01, reg_std=0.001, generator=source, **more)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("case", [0, 1])
def test_growth_equals_the_reference(golden: dict[str, Any], case: int, prefix: str) -> None:
    expected = golden["grow"][case]
    before = expected["old_rows"]
    old = state(before, prefix=prefix)
    grown = grow(old, before, before + expected["step_size"])
    assert list(grown) == list(old)
    for name in ("cls_score.weight", "bbox_pred.weight", "bbox_pred.bias"):
        key, numbers = f"{prefix}{BOX}.{name}", expected[name]
        assert list(old[key].shape) == numbers["old_shape"] and list(grown[key].shape) == numbers["new_shape"]
        assert torch.equal(grown[key][: len(old[key])], old[key])
        fresh = grown[key][len(old[key]) :]
        assert fresh.std(correction=0).item() == pytest.approx(numbers["new_rows_std"], rel=0.03, abs=1e-12)
        limit = 4 * numbers["new_rows_std"] / math.sqrt(fresh.numel()) + 1e-12
        assert abs(fresh.mean().item()) <= limit
    assert grown[f"{prefix}{BOX}.scale_cls"].item() == expected["scale_cls_kept"]


def test_class_agnostic_boxes_and_mask_logits() -> None:
    old = state(3, 8)
    old[f"{BOX}.bbox_pred.weight"], old[f"{BOX}.bbox_pred.bias"] = torch.ones(8, 8), torch.ones(8)
    old[f"{BOX}.cls_score.bias"] = torch.ones(3)
    old["roi_heads.mask.predictor.mask_fcn_logits.weight"] = torch.ones(3, 4, 1, 1)
    old["roi_heads.mask.predictor.mask_fcn_logits.bias"] = torch.ones(3)
    grown = grow(old, 3, 5, agnostic_boxes=True)
    assert torch.equal(grown[f"{BOX}.bbox_pred.weight"], torch.ones(8, 8))
    assert grown[f"{BOX}.cls_score.bias"].tolist() == [1, 1, 1, 0, 0]
    assert grown["roi_heads.mask.predictor.mask_fcn_logits.weight"].shape == (5, 4, 1, 1)
    assert torch.equal(grown["roi_heads.mask.predictor.mask_fcn_logits.weight"][:3], torch.ones(3, 4, 1, 1))
    assert grown["roi_heads.mask.predictor.mask_fcn_logits.bias"].tolist() == [1, 1, 1, 0, 0]
    with pytest.raises(CheckpointError, match="bbox_pred.weight has 8 rows, expected 12"):
        grow(old, 3, 5)


def test_class_specific_masks_start_like_those_of_a_new_model() -> None:
    old = state(3, 8) | {"roi_heads.mask.predictor.mask_fcn_logits.weight": torch.zeros(3, 64, 1, 1)}
    fresh = grow(old, 3, 203)["roi_heads.mask.predictor.mask_fcn_logits.weight"][3:]
    layer = kaiming_normal_init(torch.nn.Conv2d(64, 203, 1))
    assert fresh.std().item() == pytest.approx(layer.weight.std().item(), rel=0.05)


def test_given_class_weights_replace_sampled_ones() -> None:
    old = state(3, 8)
    drawn, given = grow(old, 3, 6), grow(old, 3, 6, class_weights={4: torch.full((8,), 2.0)})
    name = f"{BOX}.cls_score.weight"
    assert torch.equal(given[name][4], torch.full((8,), 2.0))
    kept = [0, 1, 2, 3, 5]
    assert torch.equal(given[name][kept], drawn[name][kept])
    assert torch.equal(given[f"{BOX}.bbox_pred.weight"], drawn[f"{BOX}.bbox_pred.weight"])


def test_wrong_class_count_and_missing_head() -> None:
    with pytest.raises(CheckpointError, match="has 7 rows, expected 6"):
        grow(state(7, 8), 6, 9)
    with pytest.raises(CheckpointError, match="box head"):
        grow({"rpn.head.conv.weight": torch.zeros(1)}, 6, 9)


def test_checkpoint_file(tmp_path: Path) -> None:
    names = ["__background__", "cup", "spoon"]
    source, target = tmp_path / "final.pth", tmp_path / "init.pth"
    save_atomic({"model": state(3, 8), "optimizer": {}, "iteration": 5, "classes": names}, source)
    options: dict[str, Any] = {"cls_std": 0.01, "reg_std": 0.001, "generator": torch.Generator()}
    grow_checkpoint(source, target, old_names=names, new_names=[*names, "fork"], **options)
    grown = read_checkpoint(target)
    assert "optimizer" not in grown and "iteration" not in grown
    assert grown["model"][f"{BOX}.cls_score.weight"].shape == (4, 8)
    swapped = ["__background__", "spoon", "cup"]
    with pytest.raises(CheckpointError, match='label 1 is "cup", expected "spoon"'):
        grow_checkpoint(source, target, old_names=swapped, new_names=[*swapped, "fork"], **options)
    with pytest.raises(CheckpointError, match="does not begin with the"):
        grow_checkpoint(source, target, old_names=names, new_names=[*swapped, "fork"], **options)
