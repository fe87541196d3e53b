"""What the names of data sets stand for: annotation file, picture folder and format.

The packaged names and places are those of the published catalog (specification "core", section 15). They lie
under the folder ``datasets`` of the working directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from yacs.config import CfgNode

from ..utils.errors import ConfigError
from ..utils.registry import close_matches
from .user_catalog import load_user_catalog
from .weights import resolve_weight

__all__ = ["DatasetSpec", "packaged_datasets", "resolve_dataset", "resolve_weight"]

ROOT = "datasets"
KINDS = ("coco", "lvis")
LST_SPLITS = {160: 6, 320: 3, 80: 12}  # step size: steps behind the 270 base classes of LVIS v0.5
FACTORIES = {"COCODataset": "coco", "LVISDataset": "lvis"}  # classes named by a user's DatasetCatalog


@dataclass(frozen=True)
class DatasetSpec:
    """Where a data set lies: ``kind`` is its format, "coco" or "lvis"; both paths are used as they stand."""

    name: str
    kind: str
    ann_file: str
    img_dir: str


def resolve_dataset(cfg: CfgNode, name: str) -> DatasetSpec:
    """Find a data set of DATASETS.TRAIN or DATASETS.TEST.

    In this order: the inline form ``kind:annotations.json@picture_folder``, DATASETS.REGISTER, the user's
    PATHS_CATALOG, the packaged names. Whether the files exist is found when they are read.

    Raises:
        ConfigError: the name is unknown (with the names that resemble it) or its entry is incomplete.
    """
    if "@" in name:
        return _inline(name)
    if name in cfg.DATASETS.REGISTER:
        entry = cfg.DATASETS.REGISTER[name]
        return DatasetSpec(name, entry.KIND, entry.ANN_FILE, entry.IMG_DIR)
    known = packaged_datasets()
    if cfg.PATHS_CATALOG:
        found = _from_user_catalog(cfg.PATHS_CATALOG, name)
        if found is not None:
            return found
    if name in known:
        return known[name]
    near = close_matches(name, [*cfg.DATASETS.REGISTER, *known])
    listed = [n for n in known if "_step" not in n]
    hint = f"did you mean {' or '.join(near)}?" if near else f"packaged names: {', '.join(listed)}."
    raise ConfigError(
        f"unknown data set {name!r}; {hint} Give one of your own as kind:annotations.json@picture_folder "
        "or under DATASETS.REGISTER"
    )


def packaged_datasets() -> dict[str, DatasetSpec]:
    """The data sets that are known by name."""
    table: dict[str, tuple[str, str, str]] = {}
    for part in ("train", "val", "minival", "valminusminival"):
        pictures = "coco/train2014" if part == "train" else "coco/val2014"
        table[f"coco_2014_{part}"] = ("coco", f"coco/annotations/instances_{part}2014.json", pictures)
        table[f"keypoints_coco_2014_{part}"] = (
            "coco",
            f"coco/annotations/person_keypoints_{part}2014.json",
            pictures,
        )
    for part in ("train", "val"):
        pictures = f"coco/{part}2017"
        table[f"coco_2017_{part}"] = ("coco", f"coco/annotations/instances_{part}2017.json", pictures)
        table[f"lvis_v0.5_{part}"] = ("lvis", f"lvis/annotations/lvis_v0.5_{part}.json", pictures)
        # Pictures of LVIS v1 come from both COCO folders: its records name the folder (coco_url).
        table[f"lvis_v1_{part}"] = ("lvis", f"lvis/annotations/lvis_v1_{part}.json", "coco")
    for part in ("train", "val"):
        # parity: names and places of the LST release; the split by size of its steps
        for size, steps in LST_SPLITS.items():
            for step in range(1, steps + 1):
                path = f"lvis/annotations/lvis_step{step}_{size}/lvis_v0.5_{part}_step{step}.json"
                table[f"lvis_v0.5_{part}_step{step}_{size}"] = ("lvis", path, f"coco/{part}2017")
        path = f"lvis/annotations/lvis_base_270/lvis_v0.5_{part}_base.json"
        table[f"lvis_v0.5_{part}_base_270"] = ("lvis", path, f"coco/{part}2017")
    for year, parts in (("2007", ("train", "val", "test")), ("2012", ("train", "val"))):
        for part in parts:
            folder = f"voc/VOC{year}"
            annotations = f"{folder}/Annotations/pascal_{part}{year}.json"
            table[f"voc_{year}_{part}_cocostyle"] = ("coco", annotations, f"{folder}/JPEGImages")
    for part in ("train", "val", "test"):
        annotations = f"cityscapes/annotations/instancesonly_filtered_gtFine_{part}.json"
        name = f"cityscapes_fine_instanceonly_seg_{part}_cocostyle"
        table[name] = ("coco", annotations, "cityscapes/images")
    return {
        name: DatasetSpec(name, kind, f"{ROOT}/{annotations}", f"{ROOT}/{pictures}")
        for name, (kind, annotations, pictures) in table.items()
    }


def _inline(name: str) -> DatasetSpec:
    """``kind:annotations.json@picture_folder``; the file's stem becomes the name in reports."""
    kind, colon, rest = name.partition(":")
    ann_file, _, img_dir = rest.rpartition("@")
    if not colon or kind not in KINDS or not ann_file or not img_dir:
        raise ConfigError(
            f"data set {name!r} is not of the form kind:annotations.json@picture_folder "
            f"with kind {' or '.join(KINDS)}"
        )
    stem = os.path.splitext(os.path.basename(ann_file))[0]
    return DatasetSpec(stem, kind, ann_file, img_dir)


def _from_user_catalog(path: str, name: str) -> DatasetSpec | None:
    """Entry in the published form {"factory": "COCODataset", "args": {"root": ..., "ann_file": ...}}."""
    catalog: Any = getattr(load_user_catalog(path), "DatasetCatalog", None)
    if catalog is None:
        return None
    try:
        entry = catalog.get(name)
    except (RuntimeError, KeyError):  # how published catalogs say that they do not know a name
        return None
    factory, args = entry.get("factory"), entry.get("args", {})
    if factory not in FACTORIES:
        raise ConfigError(f"{path}: data set {name!r} has factory {factory!r}; known: {', '.join(FACTORIES)}")
    missing = [k for k in ("ann_file", "root") if k not in args]
    if missing:
        raise ConfigError(f"{path}: data set {name!r} has no args {' and '.join(missing)}")
    return DatasetSpec(name, FACTORIES[factory], str(args["ann_file"]), str(args["root"]))
