"""All that a detector may read of a batch, in one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list

Images = ImageList | Sequence[Tensor] | Tensor
"""Images (3, h, w), or one batch (B, 3, H, W) of them."""


@dataclass
class StoredLogits:
    """Stored outputs of a teacher for some boxes of a batch; both lists have one entry per image.

    boxes: (n_i, 4) float32 xyxy in coordinates of the network input (n_i may be 0).
    teacher_cosine: (n_i, C_old + 1) unscaled cosines, column 0 is background.
    """

    boxes: list[Tensor]
    teacher_cosine: list[Tensor]


@dataclass
class ModelInput:
    """Images and, in training, what is known of them; every list has one entry per image.

    images: normalised float32. targets: objects in coordinates of the network input, labels 1..C; needed in
    training, may be empty lists of boxes. What only some models read: seeds of what is sampled for an image
    (None: torch's default generator); query_classes, the label whose objects alone are positive, 0 for all;
    stored_logits of a teacher; reference, the frames that a video model compares the images with, and their
    targets.

    Raises ValueError when the counts differ.
    """

    images: ImageList
    targets: Sequence[BoxList] | None = None
    seeds: Sequence[int] | None = None
    query_classes: Sequence[int] | None = None
    stored_logits: StoredLogits | None = None
    reference: ModelInput | None = None

    def __post_init__(self) -> None:
        stored = None if self.stored_logits is None else self.stored_logits.boxes
        reference = None if self.reference is None else self.reference.images
        parts = {
            "targets": self.targets,
            "seeds": self.seeds,
            "query classes": self.query_classes,
            "lists of stored logits": stored,
            "reference frames": reference,
        }
        for name, values in parts.items():
            if values is not None and len(values) != len(self.images):
                raise ValueError(f"{len(self.images)} images but {len(values)} {name}: give one per image")

    @classmethod
    def of(cls, images: Images | ModelInput, targets: Sequence[BoxList] | None = None) -> ModelInput:
        """Input of a call `model(images, targets)`; a ModelInput is returned as it is.

        Raises ValueError for a ModelInput with targets beside it.
        """
        if not isinstance(images, ModelInput):
            return cls(to_image_list(images), targets)
        if targets is not None:
            raise ValueError("a ModelInput holds its targets: call model(inputs), without a second argument")
        return images

    def ground_truth(self) -> Sequence[BoxList]:
        """Targets of a training call; ValueError when there are none."""
        if self.targets is None:
            raise ValueError("targets are needed in training mode; call model.eval() for detection")
        return self.targets
