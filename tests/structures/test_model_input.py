"""ModelInput: forms of a call, counts, and what a training call needs."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.structures import BoxList, ImageList, to_image_list
from maskrcnn_benchmark.structures.model_input import ModelInput, StoredLogits

IMAGES = [torch.ones(3, 8, 9), torch.ones(3, 7, 9)]
TARGETS = [BoxList(torch.zeros(0, 4), (9, 8)), BoxList(torch.zeros(0, 4), (9, 7))]


def test_forms_of_a_plain_call() -> None:
    for images in (IMAGES, to_image_list(IMAGES), torch.ones(2, 3, 8, 9)):
        inputs = ModelInput.of(images, TARGETS)
        assert isinstance(inputs.images, ImageList) and inputs.ground_truth() is TARGETS
    one = ModelInput.of(torch.ones(3, 8, 9))
    assert len(one.images) == 1 and one.targets is one.seeds is one.query_classes is None
    assert one.stored_logits is one.reference is None
    batch = to_image_list(IMAGES)
    assert ModelInput.of(batch).images is batch


def test_a_model_input_is_kept() -> None:
    inputs = ModelInput(to_image_list(IMAGES), TARGETS, seeds=[1, 2])
    assert ModelInput.of(inputs) is inputs
    with pytest.raises(ValueError, match="holds its targets"):
        ModelInput.of(inputs, TARGETS)


def test_training_needs_targets() -> None:
    with pytest.raises(ValueError, match="targets are needed in training mode; call model.eval"):
        ModelInput.of(IMAGES).ground_truth()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"targets": TARGETS[:1]}, "2 images but 1 targets: give one per image"),
        ({"seeds": [1, 2, 3]}, "2 images but 3 seeds"),
        ({"query_classes": [0]}, "2 images but 1 query classes"),
        ({"stored_logits": StoredLogits([], [])}, "2 images but 0 lists of stored logits"),
        ({"reference": ModelInput.of(IMAGES[:1])}, "2 images but 1 reference frames"),
    ],
)
def test_one_entry_per_image(part: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelInput(to_image_list(IMAGES), **part)
