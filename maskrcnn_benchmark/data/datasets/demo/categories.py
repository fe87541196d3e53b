"""Categories of the demo data: shape, texture and colour, and numbers of objects on a long tail."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn_benchmark.data.datasets.demo.shapes import OUTLINES

SHAPES = tuple(OUTLINES)
TEXTURES = ("plain", "striped", "dotted", "checkered")
MAX_CLASSES = len(SHAPES) * len(TEXTURES)
MAX_OBJECTS = 6  # in one image
# Fractions of the training images: the most frequent category has about half as many objects as there are
# images, the rarest a fiftieth; "rare" is a category in at most 5 % of the images, "common" in at most 15 %.
HEAD_FRACTION, TAIL_FRACTION = 0.5, 0.02
RARE_FRACTION, COMMON_FRACTION = 0.05, 0.15


@dataclass(frozen=True)
class DemoCategory:
    """One category; `rank` 0 is the most frequent; `hue`, in 0..1, is the mean of its colours."""

    rank: int
    id: int
    shape: str
    texture: str
    hue: float

    @property
    def name(self) -> str:
        """Texture and shape, for example striped_star."""
        return f"{self.texture}_{self.shape}"


def demo_categories(count: int) -> list[DemoCategory]:
    """Make `count` categories by rank; ids are 1..count in alphabetical order of the names, as in LVIS.

    Shapes and textures alternate along the ranks, so that head and tail have similar objects.
    """
    pairs = [
        (SHAPES[r % len(SHAPES)], TEXTURES[(r + r // len(SHAPES)) % len(TEXTURES)]) for r in range(count)
    ]
    names = sorted(f"{texture}_{shape}" for shape, texture in pairs)
    # 5/24 of the circle from rank to rank: equal shapes (8 ranks apart) are a third of the circle apart
    hues = [(5 * rank / 24 + rank // 24 / 48) % 1.0 for rank in range(count)]
    return [
        DemoCategory(rank, 1 + names.index(f"{texture}_{shape}"), shape, texture, hues[rank])
        for rank, (shape, texture) in enumerate(pairs)
    ]


def tail_counts(count: int, images: int) -> list[int]:
    """Number of objects of every rank in `images` training images: exponentially decreasing, at least 2."""
    ratio = TAIL_FRACTION / HEAD_FRACTION
    steps = max(1, count - 1)
    return [max(2, round(HEAD_FRACTION * images * ratio ** (rank / steps))) for rank in range(count)]


def frequency(image_count: int, images: int) -> str:
    """LVIS frequency "r", "c" or "f" of a category by the number of training images that have it."""
    if image_count <= RARE_FRACTION * images:
        return "r"
    return "c" if image_count <= COMMON_FRACTION * images else "f"
