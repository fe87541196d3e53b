"""What a component check reads: arrays, descriptions, and noise written as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.noise_text import NoiseReader
from maskrcnn_benchmark.structures.boxlist import BoxList


@dataclass
class Components:
    """`components.json` and `components.npz` of a folder; `noise` reads the phrases in its texts."""

    folder: Path
    info: dict[str, Any]
    arrays: dict[str, np.ndarray]
    noise: NoiseReader

    def tensor(self, name: str) -> Tensor:
        """A stored array as a tensor of the same shape."""
        return torch.from_numpy(self.arrays[name].copy())

    def names(self, section: str) -> list[str]:
        """Names of the arrays of a section, without the section's name and its dot."""
        return [name[len(section) + 1 :] for name in self.arrays if name.startswith(f"{section}.")]


def detection_arrays(detections: BoxList) -> list[np.ndarray]:
    """Boxes (N, 4), scores (N,) and labels (N,) of the detections of one image."""
    fields = [detections.get_field(name).numpy() for name in ("scores", "labels")]
    return [detections.bbox.numpy(), *fields]
