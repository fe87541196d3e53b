"""Distillation of the classifier of the previous phase (LST spec 6.2; Hu et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from maskrcnn_benchmark.modeling.losses import LossTerm


@dataclass
class DistillBatch:
    """Stored outputs of the teacher for some boxes of a batch; both lists have one entry per image.

    boxes: (n_i,4) float32 xyxy in coordinates of the network input (n_i may be 0).
    teacher_cosine: (n_i, C_old + 1) unscaled cosines, column 0 is background.
    """

    boxes: list[Tensor]
    teacher_cosine: list[Tensor]


def distillation_loss(student_cosine: Tensor, teacher_cosine: Tensor, num_old_classes: int) -> LossTerm:
    """Squared difference of the old-class cosines, summed over classes and boxes; the count is of boxes.

    student_cosine (n, C), teacher_cosine (n, C_old + 1), both with background
    first, which is left out, as are the student's new classes. No boxes: a
    zero connected to the graph. Raises ValueError for shapes that do not fit.
    """
    if teacher_cosine.shape != (len(student_cosine), num_old_classes + 1):
        raise ValueError(
            f"teacher cosines have shape {tuple(teacher_cosine.shape)}, expected "
            f"({len(student_cosine)}, {num_old_classes + 1}): boxes x (old classes + background)"
        )
    if student_cosine.shape[1] <= num_old_classes:
        raise ValueError(
            f"the student has {student_cosine.shape[1] - 1} classes, fewer than {num_old_classes} old ones"
        )
    old = slice(1, num_old_classes + 1)
    difference = student_cosine[:, old].float() - teacher_cosine[:, old].to(student_cosine.device).float()
    return LossTerm(difference.square().sum(), len(student_cosine))
