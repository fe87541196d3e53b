"""Small parts of annotation files."""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.utils.errors import DataError


def first_images(annotations: dict[str, Any], count: int) -> dict[str, Any]:
    """The `count` images of lowest id that hold objects, with their objects; everything else stays.

    annotations: content of a COCO or LVIS file, which is not changed. Raises DataError when it lacks
    `images` or `annotations`, or holds fewer such images.
    """
    for key in ("images", "annotations"):
        if key not in annotations:
            raise DataError(f"the annotation file has no {key!r}; give one of COCO or LVIS format")
    filled = {entry["image_id"] for entry in annotations["annotations"]}
    images = sorted((i for i in annotations["images"] if i["id"] in filled), key=lambda i: i["id"])
    if not 0 < count <= len(images):
        raise DataError(f"cannot keep {count} images: {len(images)} hold objects; ask for 1 to {len(images)}")
    ids = {image["id"] for image in images[:count]}
    objects = [entry for entry in annotations["annotations"] if entry["image_id"] in ids]
    return annotations | {"images": images[:count], "annotations": objects}
