"""Distillation of the classifier of the previous phase (LST, Hu et al. 2020, arXiv 2004.00900)."""

from __future__ import annotations

from torch import Tensor

from maskrcnn_benchmark.modeling.losses import LossTerm


def distillation_loss(student_cosine: Tensor, teacher_cosine: Tensor, num_old_classes: int) -> LossTerm:
    """Squared difference of the old-class cosines, summed over classes and boxes; the count is of boxes.

    student_cosine (n, C), teacher_cosine (n, C_old + 1), both with background first, which is left out, as
    are the student's new classes. No boxes: a zero connected to the graph. Raises ValueError for shapes that
    do not fit.
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
