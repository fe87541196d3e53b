"""Which of the many (location, class) pairs may become detections (SipMask spec 2.5, 6.2, 6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.box_coder import clip_boxes
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs, Points, boxes_around
from maskrcnn_benchmark.modeling.rpn.head import flatten_map


@dataclass(frozen=True)
class SuppressionSettings:
    """threshold: overlap within a class above which the lower score goes. limit: detections per image, <= 0
    for all. fast: all at once, also by boxes that go themselves (Fast NMS, YOLACT section 4.2; sides without
    the inclusive + 1), among the `top_k` best of a class; else one after the other.
    """

    threshold: float
    limit: int
    fast: bool = False
    top_k: int = 200


def detections_of(
    candidates: Candidates,
    image_size: tuple[int, int],
    factors: tuple[float, float],
    settings: SuppressionSettings,
) -> Candidates:
    """What is left of the candidates of one image, best first, boxes clipped to image_size (height, width).

    factors: overlaps are measured on boxes whose x and y are divided by these.
    """
    height, width = image_size
    boxes = clip_boxes(candidates.boxes, (width, height))
    candidates = Candidates(boxes, candidates.scores, candidates.labels, candidates.point)
    measured = boxes / boxes.new_tensor((*factors, *factors)) if factors != (1.0, 1.0) else boxes
    suppress = fast_nms if settings.fast else _greedy
    kept = candidates[suppress(measured, candidates.scores, candidates.labels, settings)]
    order = kept.scores.argsort(descending=True, stable=True)
    return kept[order[: settings.limit] if settings.limit > 0 else order]


def _greedy(boxes: Tensor, scores: Tensor, labels: Tensor, settings: SuppressionSettings) -> Tensor:
    if settings.threshold <= 0:
        return torch.arange(len(boxes), device=boxes.device)
    return batched_nms(boxes, scores, labels, settings.threshold)


def fast_nms(boxes: Tensor, scores: Tensor, labels: Tensor, settings: SuppressionSettings) -> Tensor:
    """Indices of the boxes (N,4) that no better box of their class overlaps more than the threshold.

    A box that is itself suppressed still suppresses. Memory grows with classes times `top_k` squared.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    table = _best_of_classes(scores, labels, settings.top_k)
    overlap = _pairwise_iou(boxes[table.clamp(min=0)])
    overlap.masked_fill_((table < 0)[:, :, None], 0)
    above = overlap.triu_(diagonal=1).amax(dim=1)  # over the better boxes of each column
    return table[(above <= settings.threshold) & (table >= 0)]


def _best_of_classes(scores: Tensor, labels: Tensor, top_k: int) -> Tensor:
    """(classes present, k) indices of each class by falling score, filled up with -1."""
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    _, row, counts = labels[order].unique_consecutive(return_inverse=True, return_counts=True)
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[row]
    kept = rank < top_k
    table = order.new_full((len(counts), min(top_k, int(counts.max()))), -1)
    table[row[kept], rank[kept]] = order[kept]
    return table


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """(C,k,k) overlap of boxes (C,k,4) with sides x2 - x1; empty pairs have 0."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    common = (high - low).clamp_(min=0).prod(dim=3)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=2)
    union = area[:, :, None] + area[:, None, :] - common
    return torch.where(union > 0, common / union, 0.0)


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
