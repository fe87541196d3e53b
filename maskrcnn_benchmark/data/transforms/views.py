"""The views of an image that test-time augmentation looks at (core spec 14)."""

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
from maskrcnn_benchmark.structures.views import View


class ViewSpec(NamedTuple):
    """The rule of its size (of one short side), and whether the view is mirrored."""

    rule: SizeRule
    flipped: bool


def view_specs(cfg: Any) -> list[ViewSpec]:
    """Views of TEST.BBOX_AUG, the plain one of INPUT first."""
    node = cfg.TEST.BBOX_AUG
    plain = SizeRule.from_cfg(cfg, train=False)
    specs = [ViewSpec(plain, False)]
    if node.H_FLIP:
        specs.append(ViewSpec(plain, True))
    for scale in node.SCALES:
        rule = SizeRule((scale,), node.MAX_SIZE, interpolation=plain.interpolation)
        specs.append(ViewSpec(rule, False))
        if node.SCALE_H_FLIP:
            specs.append(ViewSpec(rule, True))
    return specs


class TestViews(Compose):
    """An image in several sizes, plain and mirrored: its place is taken by a list of views."""

    __test__ = False  # no test case in spite of its name

    def __init__(self, specs: Sequence[ViewSpec], to_tensor: ToNormalizedTensor) -> None:
        """Keep the views in order; the target is that of the first."""
        self.specs = list(specs)
        self.to_tensor = to_tensor
        super().__init__([Resize(self.specs[0].rule)])

    def __call__(
        self, image: Image.Image, target: BoxList | None, rng: random.Random
    ) -> tuple[list[View], BoxList | None, bool]:
        """The views as normalised tensors, and the target of the plain view."""
        views = []
        for rule, flipped in self.specs:
            resized, _, _ = Resize(rule)(image, None, rng)
            tensor, _, _ = self.to_tensor(resized, None, rng)
            views.append(View(tensor.flip(2) if flipped else tensor, flipped))
        _, target, _ = super().__call__(image, target, rng)
        return views, target, False
