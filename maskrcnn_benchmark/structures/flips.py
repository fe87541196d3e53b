"""The two mirror operations that boxes, masks and keypoints understand."""

from __future__ import annotations

FLIP_LEFT_RIGHT = 0
FLIP_TOP_BOTTOM = 1


def check_flip(method: int) -> None:
    """Raise ValueError unless `method` is FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM."""
    if method not in (FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM):
        raise ValueError(f"flip method must be FLIP_LEFT_RIGHT (0) or FLIP_TOP_BOTTOM (1), got {method!r}")
