"""From outputs of FCOS to detections: candidates above a threshold, then greedy NMS or Fast NMS."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.box_coder import clip_boxes
from maskrcnn_benchmark.modeling.heads.common import distances_to_boxes, flatten_map
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs, Points
from maskrcnn_benchmark.structures.geometry import Size


@dataclass(frozen=True)
class Candidates:
    """K (location, class) pairs of one image: boxes (K, 4) xyxy in pixels of the network input, scores (K,)
    float32, labels (K,) 1..C, and `point` (K,), the location counted over all levels.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    point: Tensor

    def __getitem__(self, index: Tensor) -> Candidates:
        """Select candidates by index (k,) or mask (K,)."""
        return Candidates(self.boxes[index], self.scores[index], self.labels[index], self.point[index])


class FCOSPostProcessor:
    """Choose the detections of an image; used by FCOS and SipMask."""

    def __init__(
        self,
        *,
        score_thresh: float,
        pre_nms_top_n: int,
        nms_thresh: float,
        detections_per_img: int,
        sqrt_scores: bool = True,
        threshold_on_score: bool = False,
        top_k_by_location: bool = False,
        fast_nms: bool = False,
        fast_nms_top_k: int = 200,
    ) -> None:
        """A pair's product is its class probability times the centerness of its location; its score is the
        product or with `sqrt_scores` the square root of that.

        score_thresh: what the class probability, with `threshold_on_score` the product, must exceed.
        pre_nms_top_n: best pairs per level, with `top_k_by_location` best locations (of their highest
        product), before the threshold.
        nms_thresh: IoU within a class above which the lower score is removed, by greedy NMS or with
        `fast_nms` by Fast NMS among the `fast_nms_top_k` best of a class. detections_per_img: <= 0 sets no
        limit.
        """
        self.score_thresh = score_thresh
        self.pre_nms_top_n = pre_nms_top_n
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.sqrt_scores = sqrt_scores
        self.threshold_on_score = threshold_on_score
        self.top_k_by_location = top_k_by_location
        self.fast_nms = fast_nms
        self.fast_nms_top_k = fast_nms_top_k

    def candidates(self, outputs: FCOSOutputs, points: Points) -> list[Candidates]:
        """Candidates of every image, finer levels first."""
        maps = [
            [flatten_map(level, level.shape[1]) for level in levels]
            for levels in (outputs.logits, outputs.distances, outputs.centerness)
        ]
        starts = [0, *accumulate(len(locations) for locations in points.locations)]
        per_image = []
        for image in range(len(outputs.logits[0])):
            levels = []
            for level, (locations, unit) in enumerate(zip(points.locations, points.units, strict=True)):
                logits, distances, centerness = (m[level][image] for m in maps)
                row, label, product = self._choose(logits, centerness.squeeze(1))
                boxes = distances_to_boxes(locations[row], distances[row].float() * unit[row])
                scores = product.sqrt() if self.sqrt_scores else product
                levels.append((boxes, scores, label + 1, row + starts[level]))
            per_image.append(Candidates(*(torch.cat(columns) for columns in zip(*levels, strict=True))))
        return per_image

    def detections(
        self, candidates: Candidates, image_size: Size, nms_scale: tuple[float, float] = (1.0, 1.0)
    ) -> Candidates:
        """Candidates of one image that NMS keeps, best first, boxes clipped to image_size (height, width).

        nms_scale: IoUs are computed on boxes whose x and y are divided by these.
        """
        height, width = image_size
        boxes = clip_boxes(candidates.boxes, (width, height))
        candidates = Candidates(boxes, candidates.scores, candidates.labels, candidates.point)
        scaled = boxes / boxes.new_tensor((*nms_scale, *nms_scale)) if nms_scale != (1.0, 1.0) else boxes
        kept = candidates[self._nms(scaled, candidates.scores, candidates.labels)]
        order = kept.scores.argsort(descending=True, stable=True)
        return kept[order[: self.detections_per_img] if self.detections_per_img > 0 else order]

    def _nms(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Indices (k,) of the boxes (N, 4) that NMS within each class keeps."""
        if self.fast_nms:
            return fast_nms(boxes, scores, labels, self.nms_thresh, self.fast_nms_top_k)
        if self.nms_thresh <= 0:
            return torch.arange(len(boxes), device=boxes.device)
        return batched_nms(boxes, scores, labels, self.nms_thresh)

    def _choose(self, logits: Tensor, centerness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Location, class from 0 and product (each (k,)) of the pairs of one level: logits (N, C), centerness
        (N,).
        """
        classes = logits.shape[1]
        if self.top_k_by_location:
            rows = _best_locations(logits, centerness, self.pre_nms_top_n)
            scores = logits[rows].float().sigmoid()
            products = scores * centerness[rows].float().sigmoid()[:, None]
            chosen = (products if self.threshold_on_score else scores) > self.score_thresh
            location, label = chosen.nonzero().unbind(1)
            return rows[location], label, products[location, label]
        flat = logits.flatten()
        if self.threshold_on_score:
            products = (logits.float().sigmoid() * centerness.float().sigmoid()[:, None]).flatten()
            index = (products > self.score_thresh).nonzero().flatten()
        else:
            index = (flat.float().sigmoid() > self.score_thresh).nonzero().flatten()
        row = torch.div(index, classes, rounding_mode="floor")
        product = flat[index].float().sigmoid() * centerness[row].float().sigmoid()
        if len(index) > self.pre_nms_top_n:
            product, best = product.topk(self.pre_nms_top_n)
            index, row = index[best], row[best]
        return row, index % classes, product


def _best_locations(logits: Tensor, centerness: Tensor, limit: int) -> Tensor:
    """Indices of the `limit` locations of highest product, all in order if fewer.

    logits (N, C), centerness (N,).
    """
    if len(logits) <= limit:
        return torch.arange(len(logits), device=logits.device)
    best = logits.float().amax(dim=1).sigmoid() * centerness.float().sigmoid()
    return best.topk(limit).indices


def fast_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, top_k: int) -> Tensor:
    """Fast NMS (YOLACT, Bolya et al. 2019, section 4.2): indices (k,) of the kept boxes of (N, 4).

    Of each class the `top_k` best boxes take part; a box is removed when its IoU with any better one is above
    `threshold`, also with one that is removed itself. Sides are x2 - x1, without the inclusive + 1. Memory
    grows with classes times `top_k` squared.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    table = _best_of_classes(scores, labels, top_k)
    iou = _pairwise_iou(boxes[table.clamp(min=0)])
    iou.masked_fill_((table < 0)[:, :, None], 0)
    highest = iou.triu_(diagonal=1).amax(dim=1)  # over the better boxes of each column
    return table[(highest <= threshold) & (table >= 0)]


def _best_of_classes(scores: Tensor, labels: Tensor, top_k: int) -> Tensor:
    """Indices (classes present, k) of each class by descending score, filled up with -1."""
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    _, row, counts = labels[order].unique_consecutive(return_inverse=True, return_counts=True)
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[row]
    kept = rank < top_k
    table = order.new_full((len(counts), min(top_k, int(counts.max()))), -1)
    table[row[kept], rank[kept]] = order[kept]
    return table


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """IoU (C, k, k) of boxes (C, k, 4) with sides x2 - x1; empty pairs have 0."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    intersection = (high - low).clamp_(min=0).prod(dim=3)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=2)
    union = area[:, :, None] + area[:, None, :] - intersection
    return torch.where(union > 0, intersection / union, 0.0)
