"""Classifier rows of new classes made from training boxes: their mean, or a trained weight generator."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from maskrcnn_benchmark.modeling.roi_heads.box_head.predictors import FPNCosinePredictor
from maskrcnn_benchmark.modeling.weight_generator import MetaWeightGenerator
from maskrcnn_benchmark.utils.errors import DataError

logger = logging.getLogger(__name__)
Features = Mapping[int, Tensor]
_QUERIES = 5  # most boxes of a class that an episode is judged by


@dataclass(frozen=True)
class MetaOptions:
    """LST.GROW.META: updates; old classes an episode treats as new; most boxes of one; learning rate."""

    episodes: int
    classes: int
    shots: int
    lr: float


def new_rows(
    predictor: FPNCosinePredictor,
    features: Features,
    new_labels: range,
    cfg: CfgNode,
    source: torch.Generator,
) -> dict[int, Tensor]:
    """Rows of `new_labels` by LST.GROW.INIT ("feature_mean" or "meta") for the grown classifier.

    Args:
        predictor: that of the previous phase's model, whose features (by label) are given.
        source: decides the episodes of "meta".

    A class without a usable box is left out, and said so: it keeps a drawn row.
    """
    old_rows = predictor.cls_score.weight.detach().float().cpu()
    chosen = {label: features[label] for label in new_labels if label in features}
    if len(chosen) < len(new_labels):
        missing = [label for label in new_labels if label not in chosen]
        logger.warning("no usable training box of new labels %s: their rows are drawn", missing)
    if cfg.LST.GROW.INIT == "feature_mean":
        return feature_mean_rows(chosen, old_rows)
    meta = cfg.LST.GROW.META
    options = MetaOptions(meta.EPISODES, meta.CLASSES, meta.SHOTS, meta.LR)
    old = {label: values for label, values in features.items() if label not in new_labels}
    scale = float(predictor.scale_cls.detach())
    return generated_rows(chosen, old_rows, train_weight_generator(old, old_rows, scale, options, source))


def feature_mean_rows(features: Features, old_rows: Tensor) -> dict[int, Tensor]:
    """Row of every class: the mean of its normalised features, as long as the old rows are on average.

    Args:
        features: (n, D) by label, n at least 1.
        old_rows: (C, D) raw rows of the old classifier, background first; its norm does not count.
    """
    return {
        label: _with_norm(F.normalize(values, dim=1).mean(dim=0), old_rows)
        for label, values in features.items()
    }


def generated_rows(features: Features, old_rows: Tensor, generator: MetaWeightGenerator) -> dict[int, Tensor]:
    """Row of every class from a trained generator, as long as the old rows are on average."""
    with torch.no_grad():
        return {
            label: _with_norm(generator(values, old_rows[1:]), old_rows) for label, values in features.items()
        }


def train_weight_generator(
    features: Features, old_rows: Tensor, scale: float, options: MetaOptions, source: torch.Generator
) -> MetaWeightGenerator:
    """Train a weight generator in episodes on the old classes; region features and old rows stay fixed.

    An episode treats some old classes as new: it removes their rows, makes them anew from a few boxes, and
    classifies other boxes, of these classes and of as many remaining ones, among all old classes and the
    background (cross entropy of `scale` x cosine).

    Args:
        features: (n, D) by old label. old_rows: (C, D) raw rows, background first.
        source: decides the episodes.

    Raises:
        DataError: when fewer than two old classes have two boxes.
    """
    pool = {label: F.normalize(values, dim=1) for label, values in features.items() if len(values) > 1}
    if len(pool) < 2:
        raise DataError(
            "LST.GROW.INIT meta learns from old classes with two training boxes or more, of which there are "
            f'{len(pool)}; use "feature_mean", or raise LST.GROW.BOXES_PER_CLASS'
        )
    rows = F.normalize(old_rows, dim=1)
    generator = MetaWeightGenerator(rows.shape[1])
    optimizer = torch.optim.Adam(generator.parameters(), lr=options.lr)
    losses = []
    for _ in range(options.episodes):
        loss = _episode_loss(generator, pool, rows, scale, options, source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    window = max(1, len(losses) // 10)
    first, last = sum(losses[:window]) / window, sum(losses[-window:]) / window
    logger.info("weight generator: %d episodes, loss %.3f -> %.3f", len(losses), first, last)
    return generator


def _episode_loss(
    generator: MetaWeightGenerator,
    pool: dict[int, Tensor],
    rows: Tensor,
    scale: float,
    options: MetaOptions,
    source: torch.Generator,
) -> Tensor:
    """Loss of one episode; see `train_weight_generator`."""
    labels = list(pool)
    count = min(options.classes, len(labels) // 2)
    order = [labels[i] for i in torch.randperm(len(labels), generator=source)[: 2 * count].tolist()]
    novel, others = order[:count], order[count:]
    is_known = torch.ones(len(rows), dtype=torch.bool)
    is_known[[0, *novel]] = False
    known = rows[is_known]
    made, queries, answers = [], [], []
    for label in novel:
        boxes = pool[label][torch.randperm(len(pool[label]), generator=source)]
        most = min(options.shots, len(boxes) - 1)
        shots = 1 + int(torch.randint(most, (1,), generator=source))
        made.append(generator(boxes[:shots], known))
        queries.append(boxes[shots : shots + _QUERIES])
        answers += [label] * len(queries[-1])
    for label in others:
        chosen = torch.randperm(len(pool[label]), generator=source)[:_QUERIES]
        queries.append(pool[label][chosen])
        answers += [label] * len(chosen)
    weights = rows.index_put((torch.tensor(novel),), F.normalize(torch.stack(made), dim=1))
    return F.cross_entropy(scale * torch.cat(queries) @ weights.t(), torch.tensor(answers))


def _with_norm(row: Tensor, old_rows: Tensor) -> Tensor:
    """`row` with the mean norm of the old foreground rows: the mask transfer reads rows with their norm."""
    return F.normalize(row, dim=0) * old_rows[1:].norm(dim=1).mean()
