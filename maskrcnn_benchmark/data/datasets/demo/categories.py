"""The demo's categories: shape, texture and colour, and how many objects of each there are."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn_benchmark.data.datasets.demo.shapes import OUTLINES

SHAPES = tuple(OUTLINES)
TEXTURES = ("plain", "striped", "dotted", "checkered")
MAX_CLASSES = len(SHAPES) * len(TEXTURES)
MAX_OBJECTS = 6  # in one image
# Parts of the training images: the commonest category has about as many objects as half of the images,
# the rarest as a fiftieth; "rare" is a category in at most 5 % of the images, "common" in at most 15 %.
HEAD_PART, TAIL_PART = 0.5, 0.02
RARE_PART, COMMON_PART = 0.05, 0.15


@dataclass(frozen=True)
class DemoCategory:
    """One category; `rank` 0 is the commonest; `hue` is the middle of its colours on a circle of length 1."""

    rank: int
    id: int
    shape: str
    texture: str
    hue: float

    @property
    def name(self) -> str:
        """Such as striped_star."""
        return f"{self.texture}_{self.shape}"


def demo_categories(count: int) -> list[DemoCategory]:
    """`count` categories by rank; ids are 1..count in alphabetical order of the names, as in LVIS.

    Shapes and textures alternate along the ranks, so that head and tail look alike as groups.
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
    """Objects of every rank in `images` training images: falling exponentially, at least 2."""
    ratio = TAIL_PART / HEAD_PART
    steps = max(1, count - 1)
    return [max(2, round(HEAD_PART * images * ratio ** (rank / steps))) for rank in range(count)]


def frequency(image_count: int, images: int) -> str:
    """LVIS group "r", "c" or "f" of a category by the training images that hold it."""
    if image_count <= RARE_PART * images:
        return "r"
    return "c" if image_count <= COMMON_PART * images else "f"
