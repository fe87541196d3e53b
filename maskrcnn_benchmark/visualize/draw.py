"""Draw detections or ground truth (boxes, masks, names, scores) on an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.colors import Color, label_color, load_font, text_color
from maskrcnn_benchmark.visualize.mask_overlay import tint_mask

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
    """A new RGB image with the objects of `prediction` drawn on it.

    Args:
        image: the original image, (w, h) equal to `prediction.size`.
        prediction: boxes in image pixels; field `labels` (n,) int in 1..C; optional `scores` (n,) and
            `masks` (n, h, w) bool and `keypoints` (Keypoints). Without scores (ground truth) every object
            is drawn and no number printed.
        class_names: name of every label, index 0 is the background.
        score_threshold: objects scored below are left out; at most the `max_detections` best are drawn.
        opacity: of the mask colour, 0..1.
        scale: enlargement of the result, so that names stay readable on small images.

    Raises:
        DataError: when the image and the prediction differ in size, or a label has no name.
    """
    order = _drawing_order(prediction, score_threshold, max_detections)
    labels = prediction.get_field("labels").tolist()
    _check_input(image, prediction, [labels[i] for i in order], class_names)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    if order and prediction.has_field("masks"):
        pixels, masks = np.array(canvas), prediction.get_field("masks")
        for i in order:
            tint_mask(pixels, masks[i].cpu().bool().numpy(), label_color(labels[i]), opacity)
        canvas = Image.fromarray(pixels)
    boxes = prediction.convert("xyxy").bbox.detach().cpu().double().numpy()
    boxes[:, 2:] += 1  # the last pixel belongs to the box
    boxes *= scale
    boxes[:, 2:] -= 1
    pen = ImageDraw.Draw(canvas)
    line = max(1, round(min(size) / 250))
    for i in order:
        pen.rectangle(_ordered(boxes[i]), outline=label_color(labels[i]), width=line)
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
    """Raise DataError when the sizes differ or a label has no name."""
    if image.size != tuple(prediction.size):
        raise DataError(
            f"cannot draw: image is {image.size} (w, h) but its boxes are for {tuple(prediction.size)}"
        )
    too_large = [label for label in labels if label >= len(class_names)]
    if too_large:
        raise DataError(
            f"cannot draw: label {too_large[0]} has no name, only 0..{len(class_names) - 1} are named"
        )


def _drawing_order(prediction: BoxList, score_threshold: float, limit: int) -> list[int]:
    """Indices to draw, large objects first so that small ones end on top."""
    indices = np.arange(len(prediction))
    if prediction.has_field("scores"):
        scores = prediction.get_field("scores").detach().cpu().numpy()
        indices = indices[scores >= score_threshold]
        indices = indices[np.argsort(-scores[indices], kind="stable")][:limit]
    areas = prediction.area().cpu().numpy()
    return [int(i) for i in indices[np.argsort(-areas[indices], kind="stable")]]


def _draw_points(pen: ImageDraw.ImageDraw, points: Tensor, scale: float, radius: int, color: Color) -> None:
    """A disc with a white rim at each of the keypoints (K,3) x, y, visibility that is labelled or found."""
    for x, y, visibility in points.detach().cpu().tolist():
        if visibility > 0:
            centre = ((x + 0.5) * scale, (y + 0.5) * scale)
            corners = [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]
            pen.ellipse(corners, fill=color, outline=(255, 255, 255))


def _ordered(box: np.ndarray) -> Box:
    """Box (4,) as floats with x1 <= x2 and y1 <= y2, which Pillow insists on."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _caption(prediction: BoxList, index: int, name: str) -> str:
    """Name of an object, followed by its score when it has one."""
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
    """Write each text on a filled label, at the first of five places that covers no earlier label."""
    font = load_font(int(np.clip(min(size) / 32, 10, 22)))
    placed: list[Box] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 4
        x1, y1, x2, y2 = _ordered(np.array(box))
        places = [(x1, y1 - height), (x1, y1), (x1, y2), (x1, y2 - height), (x2 - width, y1)]
        fitted = [_inside(x, y, width, height, size) for x, y in places]
        spot = next((f for f in fitted if not any(_overlap(f, p) for p in placed)), fitted[0])
        placed.append(spot)
        pen.rectangle(spot, fill=color)
        pen.text((spot[0] + 3 - left, spot[1] + 2 - top), text, fill=text_color(color), font=font)


def _inside(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Box:
    """A label rectangle moved as little as needed to lie inside the image."""
    x = min(max(x, 0.0), max(0.0, size[0] - width))
    y = min(max(y, 0.0), max(0.0, size[1] - height))
    return x, y, x + width, y + height


def _overlap(a: Box, b: Box) -> bool:
    """Whether two rectangles share area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
