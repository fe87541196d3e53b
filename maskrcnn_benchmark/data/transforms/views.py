"""The views of an image in test-time augmentation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from maskrcnn_benchmark.data.transforms.compose import Compose
from maskrcnn_benchmark.data.transforms.geometry import Resize
from maskrcnn_benchmark.data.transforms.pixels import ToNormalizedTensor
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.geometry import AffineMap
from maskrcnn_benchmark.structures.views import View


class ViewSpec(NamedTuple):
    """The size rule of a view (with one short side), and whether it is flipped."""

    rule: SizeRule
    flipped: bool


def view_specs(cfg: Any) -> list[ViewSpec]:
    """List the views of TEST.BBOX_AUG, the unchanged one of INPUT first."""
    node = cfg.TEST.BBOX_AUG
    base = SizeRule.from_cfg(cfg, train=False)
    specs = [ViewSpec(base, False)]
    if node.H_FLIP:
        specs.append(ViewSpec(base, True))
    for scale in node.SCALES:
        rule = SizeRule((scale,), node.MAX_SIZE, interpolation=base.interpolation)
        specs.append(ViewSpec(rule, False))
        if node.SCALE_H_FLIP:
            specs.append(ViewSpec(rule, True))
    return specs


class TestViews(Compose):
    """Turn an image into a list of views in several sizes, each unchanged or flipped."""

    __test__ = False  # no test case in spite of its name

    def __init__(self, specs: Sequence[ViewSpec], to_tensor: ToNormalizedTensor) -> None:
        """Keep the views in order; the target is resized as the first one."""
        self.specs = list(specs)
        self.to_tensor = to_tensor
        super().__init__([Resize(self.specs[0].rule)])

    def __call__(
        self, image: Image.Image, target: BoxList | None, rng: random.Random
    ) -> tuple[list[View], BoxList | None, AffineMap]:
        """Return the views as normalised tensors (3, H, W), target and map of the first view."""
        views = []
        for rule, flipped in self.specs:
            resized, _, _ = Resize(rule)(image, None, rng)
            tensor, _, _ = self.to_tensor(resized, None, rng)
            views.append(View(tensor.flip(2) if flipped else tensor, flipped))
        _, target, to_first = super().__call__(image, target, rng)
        return views, target, to_first
