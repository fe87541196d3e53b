"""Names, kinds and paths of the packaged data sets, below the folder of all data sets.

They are those of maskrcnn-benchmark and of all versions of the LST release (config/paths_catalog.py of both),
and those of detectron2 (data/datasets/builtin.py).
Every function returns name -> (kind, annotations, images), see DatasetSpec.
"""

from __future__ import annotations

Paths = dict[str, tuple[str, str, str]]
LST_SPLITS = {160: 6, 320: 3, 80: 12}  # step size: steps behind the 270 base classes of LVIS v0.5


def packaged_paths() -> Paths:
    """Return name -> (kind, annotation file, image folder) of all packaged data sets."""
    return _coco() | _lvis() | _lvis_experiments() | _voc() | _cityscapes()


def _coco() -> Paths:
    table: Paths = {}
    for part in ("train", "val", "minival", "valminusminival"):
        images = "coco/train2014" if part == "train" else "coco/val2014"
        table[f"coco_2014_{part}"] = ("coco", f"coco/annotations/instances_{part}2014.json", images)
        annotations = f"coco/annotations/person_keypoints_{part}2014.json"
        table[f"keypoints_coco_2014_{part}"] = ("coco", annotations, images)
    for part in ("train", "val", "val_100"):
        split, _, count = part.partition("_")
        images, file = f"coco/{split}2017", f"{split}2017{'_' * bool(count)}{count}.json"
        table[f"coco_2017_{part}"] = ("coco", f"coco/annotations/instances_{file}", images)
        table[f"keypoints_coco_2017_{part}"] = ("coco", f"coco/annotations/person_keypoints_{file}", images)
    # the 5000 images of val2017 are those of minival2014
    table["coco_2017_minival"] = table["coco_2017_val"]
    annotations = "coco/annotations/instances_minival2014_100.json"
    table["coco_2014_minival_100"] = ("coco", annotations, "coco/val2014")
    # image lists without annotations: predicted, not evaluated
    table["coco_2014_test"] = ("coco", "coco/annotations/image_info_test2014.json", "coco/test2014")
    table["coco_2017_test"] = ("coco", "coco/annotations/image_info_test2017.json", "coco/test2017")
    for name in ("coco_2017_test_dev", "coco_2017_test-dev"):
        table[name] = ("coco", "coco/annotations/image_info_test-dev2017.json", "coco/test2017")
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


def _lvis_experiments() -> Paths:
    """Names of earlier versions of the LST release, and of detectron2."""
    table: Paths = {}
    for part in ("train", "val"):
        images, release = f"coco/{part}2017", f"lvis/lvis_trainval_1230/lvis_v0.5_{part}"
        files = {
            "top270": f"{release}_top270",
            "top100": f"lvis/lvis_v0.5_{part}_top100",
            "top108": f"lvis/lvis_v0.5_{part}_top108",
            "top1230": "lvis/lvis_v0.5_train" if part == "train" else "lvis/lvis_v0.5_val_step",
            "830": f"lvis/annotations/lvis_v0.5_{part}_830",
            "cocofied": f"lvis/lvis_v0.5_{part}_cocofied",
            "step1": f"lvis/lvis_trainval_830/lvis_step1_4gpu/lvis_v0.5_{part}_step1",
        }
        for step in range(2, 12):
            files[f"step{step}"] = f"lvis/lvis_trainval_1230/lvis_step{step}/lvis_v0.5_{part}_step{step}"
        table |= {
            f"lvis_v0.5_{part}_{name}": ("lvis", f"{file}.json", images) for name, file in files.items()
        }
    for name, file in {"sup": "sup_1", "qry": "qry_1", "finetune108": "finetune108"}.items():
        table[f"lvis_v0.5_train_{name}"] = ("lvis", f"lvis/lvis_v0.5_train_{file}.json", "coco/train2017")
    table["lvis_v0.5_minival"] = ("lvis", "lvis/annotations/lvis_v0.5_minival_830.json", "coco/val2017")
    table["lvis_v0.5_val_rand_100"] = ("lvis", "lvis/lvis_v0.5_val_rand_100.json", "coco/val2017")
    table["lvis_v0.5_test"] = ("lvis", "lvis/lvis_v0.5_image_info_test.json", "coco/test2017")
    for part in ("test_dev", "test_challenge"):
        table[f"lvis_v1_{part}"] = ("lvis", f"lvis/lvis_v1_image_info_{part}.json", "coco")
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
