"""Names, kinds and paths of the packaged data sets, below the folder of all data sets.

They are those of maskrcnn-benchmark (maskrcnn_benchmark/config/paths_catalog.py) and of the LST release.
Every function returns name -> (kind, annotations, images), see DatasetSpec.
"""

from __future__ import annotations

Paths = dict[str, tuple[str, str, str]]
LST_SPLITS = {160: 6, 320: 3, 80: 12}  # step size: steps behind the 270 base classes of LVIS v0.5


def packaged_paths() -> Paths:
    """Return name -> (kind, annotation file, image folder) of all packaged data sets."""
    return _coco() | _lvis() | _voc() | _cityscapes()


def _coco() -> Paths:
    table: Paths = {}
    for part in ("train", "val", "minival", "valminusminival"):
        images = "coco/train2014" if part == "train" else "coco/val2014"
        table[f"coco_2014_{part}"] = ("coco", f"coco/annotations/instances_{part}2014.json", images)
        annotations = f"coco/annotations/person_keypoints_{part}2014.json"
        table[f"keypoints_coco_2014_{part}"] = ("coco", annotations, images)
    for part in ("train", "val"):
        annotations = f"coco/annotations/instances_{part}2017.json"
        table[f"coco_2017_{part}"] = ("coco", annotations, f"coco/{part}2017")
    return table


def _lvis() -> Paths:
    table: Paths = {}
    for part in ("train", "val"):
        images = f"coco/{part}2017"
        table[f"lvis_v0.5_{part}"] = ("lvis", f"lvis/annotations/lvis_v0.5_{part}.json", images)
        # Images of LVIS v1 come from both COCO folders: its records name the folder (coco_url).
        table[f"lvis_v1_{part}"] = ("lvis", f"lvis/annotations/lvis_v1_{part}.json", "coco")
    for part in ("train", "val"):
        # parity: names and paths of the LST release; the split by size of its steps
        for size, steps in LST_SPLITS.items():
            for step in range(1, steps + 1):
                path = f"lvis/annotations/lvis_step{step}_{size}/lvis_v0.5_{part}_step{step}.json"
                table[f"lvis_v0.5_{part}_step{step}_{size}"] = ("lvis", path, f"coco/{part}2017")
        path = f"lvis/annotations/lvis_base_270/lvis_v0.5_{part}_base.json"
        table[f"lvis_v0.5_{part}_base_270"] = ("lvis", path, f"coco/{part}2017")
    return table


def _voc() -> Paths:
    table: Paths = {}
    for year in ("2007", "2012"):
        folder = f"voc/VOC{year}"
        for part in ("train", "val", "trainval", "test"):
            paths = f"{folder}/ImageSets/Main/{part}.txt", f"{folder}/JPEGImages"
            table[f"voc_{year}_{part}"] = ("voc", *paths)
        # The objects of the test part of 2012 were not published.
        for part in ("train", "val", "test") if year == "2007" else ("train", "val"):
            paths = f"{folder}/Annotations/pascal_{part}{year}.json", f"{folder}/JPEGImages"
            table[f"voc_{year}_{part}_cocostyle"] = ("coco", *paths)
    return table


def _cityscapes() -> Paths:
    table: Paths = {}
    for part in ("train", "val", "test"):
        annotations = f"cityscapes/annotations/instancesonly_filtered_gtFine_{part}.json"
        name = f"cityscapes_fine_instanceonly_seg_{part}_cocostyle"
        table[name] = ("coco", annotations, "cityscapes/images")
    for form in ("poly", "mask"):
        for part in ("train", "val", "minival"):
            folder = part.removeprefix("mini")
            paths = f"cityscapes/gtFine/{folder}", f"cityscapes/leftImg8bit/{folder}"
            table[f"cityscapes_{form}_instance_{part}"] = (f"cityscapes_{form}", *paths)
    return table
