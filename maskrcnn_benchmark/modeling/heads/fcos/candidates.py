"""Which of the many (location, class) pairs may become detections (SipMask spec 2.5, 6.2, 6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.heads.fcos.locations import boxes_around
from maskrcnn_benchmark.modeling.heads.fcos.outputs import FCOSOutputs, Points
from maskrcnn_benchmark.modeling.rpn.head import flatten_map


@dataclass(frozen=True)
class CandidateSettings:
    """Which pairs are kept. A pair's score is its class probability times the centerness of its location,
    with `root` the square root of that.

    threshold: what the class probability, with `on_score` the product, must exceed. limit: best pairs per
    level, with `by_location` best locations (of their highest product), before the threshold.
    """

    threshold: float
    limit: int
    root: bool = True
    on_score: bool = False
    by_location: bool = False


@dataclass(frozen=True)
class Candidates:
    """K pairs of one image: boxes (K,4) in pixels of the network input, scores (K,) float32, labels (K,)
    1..C, and `point` (K,), the location counted over all levels.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    point: Tensor

    def __getitem__(self, index: Tensor) -> Candidates:
        """Some of them."""
        return Candidates(self.boxes[index], self.scores[index], self.labels[index], self.point[index])


def find_candidates(outputs: FCOSOutputs, points: Points, settings: CandidateSettings) -> list[Candidates]:
    """Candidates of every image, finer levels first."""
    maps = [
        [flatten_map(level, level.shape[1]) for level in levels]
        for levels in (outputs.logits, outputs.distances, outputs.centerness)
    ]
    starts = [0, *accumulate(len(places) for places in points.locations)]
    found = []
    for image in range(len(outputs.logits[0])):
        levels = []
        for level, (places, unit) in enumerate(zip(points.locations, points.units, strict=True)):
            logits, distances, centerness = (m[level][image] for m in maps)
            row, label, product = _choose(logits, centerness.squeeze(1), settings)
            boxes = boxes_around(places[row], distances[row].float() * unit[row])
            scores = product.sqrt() if settings.root else product
            levels.append((boxes, scores, label + 1, row + starts[level]))
        found.append(Candidates(*(torch.cat(columns) for columns in zip(*levels, strict=True))))
    return found


def _choose(logits: Tensor, centerness: Tensor, settings: CandidateSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Row, class from 0 and product (each (k,)) of the pairs of one level: logits (N,classes), centerness
    (N,).
    """
    classes = logits.shape[1]
    if settings.by_location:
        rows = _best_locations(logits, centerness, settings.limit)
        scores = logits[rows].float().sigmoid()
        products = scores * centerness[rows].float().sigmoid()[:, None]
        chosen = (products if settings.on_score else scores) > settings.threshold
        place, label = chosen.nonzero().unbind(1)
        return rows[place], label, products[place, label]
    flat = logits.flatten()
    if settings.on_score:
        every = (logits.float().sigmoid() * centerness.float().sigmoid()[:, None]).flatten()
        index = (every > settings.threshold).nonzero().flatten()
    else:
        index = (flat.float().sigmoid() > settings.threshold).nonzero().flatten()
    row = torch.div(index, classes, rounding_mode="floor")
    product = flat[index].float().sigmoid() * centerness[row].float().sigmoid()
    if len(index) > settings.limit:
        product, best = product.topk(settings.limit)
        index, row = index[best], row[best]
    return row, index % classes, product


def _best_locations(logits: Tensor, centerness: Tensor, limit: int) -> Tensor:
    """Rows of the `limit` locations of highest product, or all of them in order."""
    if len(logits) <= limit:
        return torch.arange(len(logits), device=logits.device)
    best = logits.float().amax(dim=1).sigmoid() * centerness.float().sigmoid()
    return best.topk(limit).indices
