"""The views of a picture that test-time augmentation looks at (core spec 14)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from ...structures import BoxList
from ...structures.views import View
from .compose import Compose
from .geometry import Resize
from .pixels import ToNormalizedTensor


class ViewSpec(NamedTuple):
    """Short side and cap of the long side in pixels, and whether the view is mirrored."""

    min_size: int
    max_size: int
    flipped: bool


def view_specs(cfg: Any) -> list[ViewSpec]:
    """Views of TEST.BBOX_AUG, the plain one of INPUT first."""
    node = cfg.TEST.BBOX_AUG
    plain = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    specs = [ViewSpec(*plain, False)]
    if node.H_FLIP:
        specs.append(ViewSpec(*plain, True))
    for scale in node.SCALES:
        specs.append(ViewSpec(scale, node.MAX_SIZE, False))
        if node.SCALE_H_FLIP:
            specs.append(ViewSpec(scale, node.MAX_SIZE, True))
    return specs


class TestViews(Compose):
    """A picture in several sizes, plain and mirrored: its place is taken by a list of views."""

    __test__ = False  # no test case in spite of its name

    def __init__(self, specs: Sequence[ViewSpec], to_tensor: ToNormalizedTensor) -> None:
        """Keep the views in order; the target is that of the first."""
        self.specs = list(specs)
        self.to_tensor = to_tensor
        super().__init__([Resize([self.specs[0].min_size], self.specs[0].max_size)])

    def __call__(
        self, image: Image.Image, target: BoxList | None, rng: random.Random
    ) -> tuple[list[View], BoxList | None, bool]:
        """The views as normalised tensors, and the target of the plain view."""
        views = []
        for min_size, max_size, flipped in self.specs:
            resized, _, _ = Resize([min_size], max_size)(image, None, rng)
            tensor, _, _ = self.to_tensor(resized, None, rng)
            views.append(View(tensor.flip(2) if flipped else tensor, flipped))
        _, target, _ = super().__call__(image, target, rng)
        return views, target, False
