"""Draw detections or ground truth (boxes, masks, names, scores) on an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.colors import Color, label_color, load_font, text_color
from maskrcnn_benchmark.visualize.mask_overlay import overlay_mask

Box = tuple[float, float, float, float]


def draw_detections(
    image: Image.Image,
    prediction: BoxList,
    class_names: Sequence[str],
    *,
    score_threshold: float = 0.5,
    max_detections: int = 100,
    opacity: float = 0.45,
    scale: float = 1.0,
) -> Image.Image:
    """Draw the objects of `prediction` on a copy of `image` (RGB).

    Args:
        image: the original image, (w, h) equal to `prediction.size`.
        prediction: N boxes in image pixels; field `labels` (N,) int in 1..C; optional `scores` (N,), `masks`
            (N, h, w) bool and `keypoints` (Keypoints). Without scores (ground truth) every object is drawn,
            by its name alone.
        class_names: name of every label, index 0 is the background.
        score_threshold: objects with a lower score are left out, and those that rank behind the first
            `max_detections` by score.
        opacity: of the masks, 0..1.
        scale: magnification of the result, so that names stay readable on small images.

    Raises:
        DataError: the image and the prediction differ in size, or a label has no name.
    """
    order = _drawing_order(prediction, score_threshold, max_detections)
    labels = prediction.get_field("labels").tolist()
    _check_input(image, prediction, [labels[i] for i in order], class_names)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    if order and prediction.has_field("masks"):
        pixels, masks = np.array(canvas), prediction.get_field("masks")
        for i in order:
            overlay_mask(pixels, masks[i].cpu().bool().numpy(), label_color(labels[i]), opacity)
        canvas = Image.fromarray(pixels)
    boxes = prediction.convert("xyxy").bbox.detach().cpu().double().numpy()
    boxes[:, 2:] += 1  # the last pixel belongs to the box
    boxes *= scale
    boxes[:, 2:] -= 1
    pen = ImageDraw.Draw(canvas)
    line = max(1, round(min(size) / 250))
    for i in order:
        pen.rectangle(_sort_corners(boxes[i]), outline=label_color(labels[i]), width=line)
        if prediction.has_field("keypoints"):
            _draw_points(
                pen, prediction.get_field("keypoints").points[i], scale, 2 * line, label_color(labels[i])
            )
    texts = [_caption(prediction, i, class_names[labels[i]]) for i in order]
    _draw_captions(
        pen, size, [tuple(boxes[i]) for i in order], texts, [label_color(labels[i]) for i in order]
    )
    return canvas


def _check_input(
    image: Image.Image, prediction: BoxList, labels: Sequence[int], class_names: Sequence[str]
) -> None:
    """Raise DataError if the sizes differ or a label has no name."""
    if image.size != tuple(prediction.size):
        raise DataError(
            f"cannot draw: image is {image.size} (w, h) but its boxes are for {tuple(prediction.size)}; "
            "resize the prediction to the image"
        )
    too_large = [label for label in labels if label >= len(class_names)]
    if too_large:
        raise DataError(
            f"cannot draw: label {too_large[0]} has no name, only 0..{len(class_names) - 1} are named; "
            "give the class names of the data set that the model was trained on"
        )


def _drawing_order(prediction: BoxList, score_threshold: float, limit: int) -> list[int]:
    """Select the objects to draw; large ones first, so that small ones end on top."""
    indices = np.arange(len(prediction))
    if prediction.has_field("scores"):
        scores = prediction.get_field("scores").detach().cpu().numpy()
        indices = indices[scores >= score_threshold]
        indices = indices[np.argsort(-scores[indices], kind="stable")][:limit]
    areas = prediction.area().cpu().numpy()
    return [int(i) for i in indices[np.argsort(-areas[indices], kind="stable")]]


def _draw_points(pen: ImageDraw.ImageDraw, points: Tensor, scale: float, radius: int, color: Color) -> None:
    """Draw a disc with a white rim at every visible keypoint of `points` (K, 3): x, y, visibility."""
    for x, y, visibility in points.detach().cpu().tolist():
        if visibility > 0:
            centre = ((x + 0.5) * scale, (y + 0.5) * scale)
            corners = [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]
            pen.ellipse(corners, fill=color, outline=(255, 255, 255))


def _sort_corners(box: np.ndarray) -> Box:
    """Sort the corners of a box (4,) xyxy, so that x1 <= x2 and y1 <= y2, as Pillow requires."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _caption(prediction: BoxList, index: int, name: str) -> str:
    """Return the class name of an object, followed by its score if it has one."""
    if not prediction.has_field("scores"):
        return name
    return f"{name} {float(prediction.get_field('scores')[index]):.2f}"


def _draw_captions(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    boxes: Sequence[Box],
    texts: Sequence[str],
    colors: Sequence[Color],
) -> None:
    """Write each text on a filled rectangle, at the first of five positions that covers no earlier one."""
    font = load_font(int(np.clip(min(size) / 32, 10, 22)))
    placed: list[Box] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 4
        x1, y1, x2, y2 = _sort_corners(np.array(box))
        positions = [(x1, y1 - height), (x1, y1), (x1, y2), (x1, y2 - height), (x2 - width, y1)]
        candidates = [_move_inside(x, y, width, height, size) for x, y in positions]
        chosen = next((c for c in candidates if not any(_intersect(c, p) for p in placed)), candidates[0])
        placed.append(chosen)
        pen.rectangle(chosen, fill=color)
        pen.text((chosen[0] + 3 - left, chosen[1] + 2 - top), text, fill=text_color(color), font=font)


def _move_inside(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Box:
    """Move a rectangle by the minimum that brings it inside the image."""
    x = min(max(x, 0.0), max(0.0, size[0] - width))
    y = min(max(y, 0.0), max(0.0, size[1] - height))
    return x, y, x + width, y + height


def _intersect(a: Box, b: Box) -> bool:
    """Whether two boxes xyxy have a common area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
