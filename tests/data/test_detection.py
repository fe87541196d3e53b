"""DetectionDataset: labels, filters, clipping, bad images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import ConcatDataset, DetectionDataset
from maskrcnn_benchmark.data.datasets.images import image_paths, read_record_image
from maskrcnn_benchmark.data.transforms import Compose, Resize, SizeRule, ToNormalizedTensor
from maskrcnn_benchmark.data.types import SampleKey, collate
from maskrcnn_benchmark.utils.errors import DataError

Make = Callable[..., DetectionDataset]


def test_training_filter_labels_and_fields(make: Make) -> None:
    """Empty and degenerate images go; labels follow file order; crowds are no targets."""
    data = make()
    assert data.image_ids == [11, 12, 15] and len(data) == 3
    assert data.label_to_category == [0, 7, 3, 5]
    assert data.class_names == ["__background__", "cat", "dog", "cow"]
    first = data[0]
    assert first.image.shape == (3, 40, 50) and first.image.dtype == torch.float32 and first.image_id == 11
    assert first.target.get_field("labels").tolist() == [2, 1]
    assert first.target.get_field("annotation_ids").tolist() == [1, 2]
    assert first.target.bbox.tolist() == [[5, 6, 24, 15], [10, 20, 24, 34]]
    assert first.target.get_field("masks").to_bitmaps().sum((1, 2)).tolist() == [200, 225]
    assert data[1].target.get_field("annotation_ids").tolist() == [3]
    assert data.get_img_info(2)["id"] == 15


def test_all_images_and_an_empty_one(make: Make) -> None:
    """keep_images all: every image, with empty targets as ordinary ones; batches of them collate."""
    data = make(keep_images="all")
    assert data.image_ids == [11, 12, 13, 14, 15]
    empty = data[3]
    assert len(empty.target) == 0 and empty.target.get_field("labels").dtype == torch.int64
    batch = collate([empty, data[0]], 32)
    assert batch.images.tensors.shape == (2, 3, 64, 64) and batch.image_ids == [14, 11]
    assert len(batch.to("cpu")) == 2 and empty.original_size == (40, 50)


def test_sizes_of_the_files_travel_with_a_batch(make: Make) -> None:
    """The size before the transforms, (height, width), also through parts joined to one set."""
    steps = [Resize(SizeRule((20,), 100)), ToNormalizedTensor((0, 0, 0), (1, 1, 1), True)]
    small = make(transforms=Compose(steps))
    batch = collate([ConcatDataset([small, make()])[index] for index in (1, 4)], 32).to("cpu")
    assert batch.images.image_sizes == [(20, 25), (40, 50)]
    assert batch.images.original_sizes == [(40, 50), (40, 50)]


def test_clipping_of_boxes_outside(make: Make) -> None:
    """A box that leaves the image is cut, one outside is dropped; greyscale becomes three channels."""
    sample = make()[2]
    assert sample.target.bbox.tolist() == [[40, 30, 49, 39]]
    assert sample.target.get_field("annotation_ids").tolist() == [6]
    assert torch.equal(sample.image[0], sample.image[2])


def test_category_order_and_sorting(make: Make) -> None:
    """Labels by position, other categories ignored, objects sorted by label."""
    data = make(category_order=[7, 3], sort_by_label=True)
    assert data.image_ids == [11, 15]
    assert data[0].target.get_field("annotation_ids").tolist() == [2, 1]
    assert data[0].target.get_field("labels").tolist() == [1, 2]
    with pytest.raises(DataError, match=r"ids \[99\] are unknown"):
        make(category_order=[7, 99])
    with pytest.raises(DataError, match="twice"):
        make(category_order=[7, 7])


def test_unreadable_image(
    make: Make, raw: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """error: the file is named; skip: the next image with a warning; never when testing."""
    (tmp_path / "12.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image 12 cannot be read: .*12\.jpg"):
        make(raw)[1]
    skipping = make(raw, bad_image="skip")
    with caplog.at_level(logging.WARNING):
        sample = skipping[1]
    assert sample.image_id == 15 and sample.replaced and skipping.replaced_count == 1
    assert "12.jpg" in caplog.text and "1 replaced" in caplog.text
    with pytest.raises(DataError):
        make(raw, bad_image="skip", train=False)[1]


def test_truncated_missing_and_wrong_size(make: Make, raw: dict[str, Any], tmp_path: Path) -> None:
    """Each is an error of its own."""
    path = tmp_path / "12.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read"):
        make(raw)[1]
    path.unlink()
    with pytest.raises(DataError, match="image 12 is missing"):
        make(raw)[1]
    Image.new("RGB", (20, 40)).save(path)
    with pytest.raises(DataError, match="is 20 x 40, its record says 50 x 40"):
        make(raw)[1]


def test_nothing_usable(make: Make, raw: dict[str, Any], tmp_path: Path) -> None:
    """When every image is broken, skipping ends with an error."""
    for number in (11, 12, 15):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="no image of"):
        make(raw, bad_image="skip")[0]


def test_query_class_survives_clipping(
    make: Make, raw: dict[str, Any], annotation: Callable[..., dict[str, Any]]
) -> None:
    """A pair whose class is clipped away gives the next image with that class."""
    raw["annotations"].append(annotation(8, 12, 3, (70, 10, 20, 20)))
    data = make(raw)
    assert data.image_ids == [11, 12, 15]
    sample = data[SampleKey(1, query_class=2)]
    assert sample.image_id == 15 and sample.query_class == 2 and sample.replaced
    assert not data[SampleKey(0, query_class=1)].replaced


def test_mixed_and_missing_segmentations(make: Make, raw: dict[str, Any]) -> None:
    """Run lengths beside polygons work; a missing or misfitting one is named; none at all means no masks."""
    raw["annotations"][1]["segmentation"] = {"size": [40, 50], "counts": [0, 40, 1960]}
    masks = make(raw)[0].target.get_field("masks")
    assert masks.mode == "mask" and masks.to_bitmaps().sum((1, 2)).tolist() == [200, 40]
    raw["annotations"][1]["segmentation"]["size"] = [50, 40]
    with pytest.raises(DataError, match="image 11"):
        make(raw)[0]
    del raw["annotations"][1]["segmentation"]
    with pytest.raises(DataError, match="annotation 2 has no segmentation"):
        make(raw)
    for ann in raw["annotations"]:
        ann.pop("segmentation", None)
    assert make(raw)[0].target.fields() == ["labels", "annotation_ids"]


def test_one_pixel_image(make: Make, annotation: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """1x1 goes through; its only box is empty after clipping."""
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    raw = {
        "images": [{"id": 1, "width": 1, "height": 1, "file_name": "dot.png"}],
        "categories": [{"id": 1, "name": "dot"}],
        "annotations": [annotation(1, 1, 1, (0, 0, 2, 2))],
    }
    sample = make(raw)[0]
    assert sample.image.shape == (3, 40, 40) and len(sample.target) == 0


def test_concat(make: Make) -> None:
    """Indices count through; other classes are refused; out of range is an IndexError."""
    first, second = make(), make(keep_images="all")
    both = ConcatDataset([first, second])
    assert len(both) == 8 and both.image_ids == [11, 12, 15, 11, 12, 13, 14, 15]
    sample = both[SampleKey(4, 0, 3)]
    assert sample.image_id == 12 and sample.index == 4 and both.get_img_info(7)["id"] == 15
    with pytest.raises(IndexError):
        both[8]
    with pytest.raises(IndexError):
        first[-1]
    with pytest.raises(DataError, match="different classes"):
        ConcatDataset([first, make(category_order=[7])])


def test_lvis_image_names() -> None:
    """v0.5 names of COCO 2014, v1 urls."""
    old = image_paths("d", {"id": 1, "file_name": "COCO_val2014_000000000009.jpg"})
    assert old == ["d/COCO_val2014_000000000009.jpg", "d/000000000009.jpg"]
    new = image_paths("d", {"id": 1, "coco_url": "http://x.org/train2017/000000000009.jpg"})
    assert new == ["d/train2017/000000000009.jpg", "d/000000000009.jpg"]


@pytest.mark.sample
def test_real_images(sample_data: Path) -> None:
    """COCO and LVIS forms of real images load, greyscale and empty ones too."""
    folder = sample_data / "coco_sample"
    for name in ("instances_val", "lvis_val"):
        annotations = AnnotationFile.load(folder / "annotations" / f"{name}.json")
        data = DetectionDataset(
            annotations,
            str(folder / "images/val"),
            transforms=Compose([ToNormalizedTensor((0, 0, 0), (1, 1, 1), True)]),
            train=False,
            keep_images="all",
        )
        assert len(data) == 146 and annotations.kind == ("coco" if name == "instances_val" else "lvis")
        for index in range(0, len(data), 15):
            assert data[index].image.shape[0] == 3
    raw = AnnotationFile.load(sample_data / "lvis_val_100" / "lvis_val_with_images.json")
    assert read_record_image(str(sample_data / "lvis_val_100/images"), raw.images[0]).mode == "RGB"
