"""Initial class weights of new classes from their training boxes: feature mean, or a meta weight generator.

The meta weight generator follows LST (Hu et al. 2020, arXiv 2004.00900): it is trained in episodes in which
some old classes play the new ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from maskrcnn_benchmark.modeling.roi_heads.box_head.predictors import FPNCosinePredictor, MetaWeightGenerator
from maskrcnn_benchmark.utils.errors import DataError

logger = logging.getLogger(__name__)
Features = Mapping[int, Tensor]
_MAX_QUERIES = 5  # boxes of a class that an episode classifies


def init_class_weights(
    predictor: FPNCosinePredictor,
    features: Features,
    new_labels: range,
    cfg: CfgNode,
    source: torch.Generator,
) -> dict[int, Tensor]:
    """Class weights (D,) of `new_labels` by LST.GROW.INIT ("feature_mean" or "meta").

    A class without a usable box is left out with a warning: it keeps a random weight.

    Args:
        predictor: classifier of the previous phase's model, which gave the features.
        features: RoI features (n, D) by label.
        source: samples the episodes of "meta".
    """
    old_weights = predictor.cls_score.weight.detach().float().cpu()
    new_features = {label: features[label] for label in new_labels if label in features}
    if len(new_features) < len(new_labels):
        missing = [label for label in new_labels if label not in new_features]
        logger.warning("no usable training box of new labels %s: their class weights are random", missing)
    if cfg.LST.GROW.INIT == "feature_mean":
        return feature_mean_weights(new_features, old_weights)
    meta = cfg.LST.GROW.META
    generator = train_weight_generator(
        {label: values for label, values in features.items() if label not in new_labels},
        old_weights,
        float(predictor.scale_cls.detach()),
        source,
        episodes=meta.EPISODES,
        max_classes=meta.CLASSES,
        max_shots=meta.SHOTS,
        lr=meta.LR,
    )
    return generated_weights(new_features, old_weights, generator)


def feature_mean_weights(features: Features, old_weights: Tensor) -> dict[int, Tensor]:
    """Class weight (D,) of every label: the mean of its L2-normalised features, with the mean old norm.

    Args:
        features: (n, D) by label, n at least 1.
        old_weights: (C, D) weights of the old classifier, background first; its norm does not count.
    """
    return {
        label: _with_old_norm(F.normalize(values, dim=1).mean(dim=0), old_weights)
        for label, values in features.items()
    }


def generated_weights(
    features: Features, old_weights: Tensor, generator: MetaWeightGenerator
) -> dict[int, Tensor]:
    """Class weight (D,) of every label from a trained generator, with the mean old norm.

    Args:
        features: (n, D) by label. old_weights: (C, D), background first.
    """
    with torch.no_grad():
        return {
            label: _with_old_norm(generator(values, old_weights[1:]), old_weights)
            for label, values in features.items()
        }


def train_weight_generator(
    features: Features,
    old_weights: Tensor,
    scale: float,
    source: torch.Generator,
    *,
    episodes: int,
    max_classes: int,
    max_shots: int,
    lr: float,
) -> MetaWeightGenerator:
    """Train a meta weight generator in episodes on the old classes; features and old weights stay fixed.

    An episode treats some old classes as new: it removes their weights, generates them from a few boxes, and
    classifies other boxes, of these classes and of as many remaining ones, among all old classes and the
    background (cross entropy of `scale` x cosine).

    Args:
        features: RoI features (n, D) by old label. old_weights: (C, D), background first.
        scale: scale of the cosine classifier. source: samples the episodes.
        episodes: number of updates. max_classes: old classes that an episode treats as new.
        max_shots: boxes that the weight of one is generated from. lr: learning rate of Adam.

    Raises:
        DataError: when fewer than two old classes have two boxes.
    """
    pool = {label: F.normalize(values, dim=1) for label, values in features.items() if len(values) > 1}
    if len(pool) < 2:
        raise DataError(
            "LST.GROW.INIT meta learns from old classes with two training boxes or more, of which there are "
            f'{len(pool)}; use "feature_mean", or raise LST.GROW.BOXES_PER_CLASS'
        )
    weights = F.normalize(old_weights, dim=1)
    generator = MetaWeightGenerator(weights.shape[1])
    optimizer = torch.optim.Adam(generator.parameters(), lr=lr)
    losses = []
    for _ in range(episodes):
        loss = _episode_loss(generator, pool, weights, scale, source, max_classes, max_shots)
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
    weights: Tensor,
    scale: float,
    source: torch.Generator,
    max_classes: int,
    max_shots: int,
) -> Tensor:
    """Loss () of one episode; `pool` (n, D) by label and `weights` (C, D) are L2-normalised."""
    labels = list(pool)
    count = min(max_classes, len(labels) // 2)
    order = [labels[i] for i in torch.randperm(len(labels), generator=source)[: 2 * count].tolist()]
    novel, others = order[:count], order[count:]
    is_known = torch.ones(len(weights), dtype=torch.bool)
    is_known[[0, *novel]] = False
    known = weights[is_known]
    generated, queries, targets = [], [], []
    for label in novel:
        boxes = pool[label][torch.randperm(len(pool[label]), generator=source)]
        limit = min(max_shots, len(boxes) - 1)
        shots = 1 + int(torch.randint(limit, (1,), generator=source))
        generated.append(generator(boxes[:shots], known))
        queries.append(boxes[shots : shots + _MAX_QUERIES])
        targets += [label] * len(queries[-1])
    for label in others:
        chosen = torch.randperm(len(pool[label]), generator=source)[:_MAX_QUERIES]
        queries.append(pool[label][chosen])
        targets += [label] * len(chosen)
    all_weights = weights.index_put((torch.tensor(novel),), F.normalize(torch.stack(generated), dim=1))
    return F.cross_entropy(scale * torch.cat(queries) @ all_weights.t(), torch.tensor(targets))


def _with_old_norm(weight: Tensor, old_weights: Tensor) -> Tensor:
    """`weight` (D,) scaled to the mean norm of the old foreground weights, which the mask transfer reads."""
    return F.normalize(weight, dim=0) * old_weights[1:].norm(dim=1).mean()
