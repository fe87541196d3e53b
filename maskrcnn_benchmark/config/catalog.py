"""Resolve names of data sets to annotation file, image folder and kind.

The packaged names and paths are those of maskrcnn-benchmark (maskrcnn_benchmark/config/paths_catalog.py).
They lie under the folder `datasets` of the working directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.builtin_datasets import packaged_paths
from maskrcnn_benchmark.config.user_catalog import load_user_catalog
from maskrcnn_benchmark.config.weights import resolve_weight
from maskrcnn_benchmark.utils.errors import ConfigError, UsageError
from maskrcnn_benchmark.utils.files import expand_path
from maskrcnn_benchmark.utils.registry import close_matches
from maskrcnn_benchmark.utils.text import shortened

__all__ = ["KINDS", "DatasetKind", "DatasetSpec", "packaged_datasets", "resolve_dataset", "resolve_weight"]

ROOT = "datasets"
MINI = 10  # images, roughly, of cityscapes_*_instance_minival


@dataclass(frozen=True)
class DatasetKind:
    """One kind of data set: how it is evaluated, and what a model can be tested for on it.

    evaluator: its entry in `evaluation.base.EVALUATORS`; the reader of its annotations is the entry of the
    same name as the kind in `data.datasets.readers.READERS`. tasks: some of "bbox", "segm", "keypoints".
    ann_file: what ANN_FILE names, for messages. names_classes: the entry of a data set may list CLASSES,
    because its files do not.
    """

    evaluator: str
    tasks: tuple[str, ...]
    ann_file: str = "annotation file"
    names_classes: bool = False


# Adding a kind: a row here, a reader of the same name, and a protocol if none of the evaluators fits
# (docs/architecture.md, "Adding things").
KINDS: dict[str, DatasetKind] = {
    "coco": DatasetKind("coco", ("bbox", "segm", "keypoints")),
    "lvis": DatasetKind("lvis", ("bbox", "segm", "keypoints")),
    "voc": DatasetKind("voc", ("bbox",), ann_file="list of images", names_classes=True),
    "cityscapes": DatasetKind("cityscapes", ("bbox", "segm")),
    "cityscapes_poly": DatasetKind("cityscapes", ("bbox", "segm"), ann_file="annotation folder"),
    "cityscapes_mask": DatasetKind("cityscapes", ("bbox", "segm"), ann_file="annotation folder"),
}


def known_kinds() -> str:
    """Return the names of all kinds of data sets as a list for messages: "coco, lvis, ... or NAME"."""
    *names, last = KINDS
    return f"{', '.join(names)} or {last}"


# Data set classes that a user's DatasetCatalog may name, and the arguments that each needs.
FACTORIES = {
    "COCODataset": ("ann_file", "root"),
    "LVISDataset": ("ann_file", "root"),
    "PascalVOCDataset": ("data_dir", "split"),
    "CityScapesDataset": ("img_dir", "ann_dir", "split"),
}


@dataclass(frozen=True)
class DatasetSpec:
    """Annotation file and image folder of a data set; both paths are used as they stand.

    kind: its format, which also decides how results are evaluated. ann_file is, for

    * "coco", "lvis": the annotation file;
    * "voc": the list of a split, `ImageSets/Main/train.txt`; `Annotations` lies beside `ImageSets`;
    * "cityscapes": a COCO-format file that tools/convert_cityscapes.py wrote;
    * "cityscapes_poly", "cityscapes_mask": the folder of a split, `gtFine/train`; objects are read as
      polygons or from the instance id images.

    classes: "voc" only, class names in the order of their labels; () stands for the 20 of Pascal VOC.
    images: about so many of a Cityscapes split, evenly spread; 0 = all.
    """

    name: str
    kind: str
    ann_file: str
    img_dir: str
    classes: tuple[str, ...] = ()
    images: int = 0


def resolve_dataset(cfg: CfgNode, name: str) -> DatasetSpec:
    """Resolve a name of DATASETS.TRAIN or DATASETS.TEST.

    In this order: the inline form `kind:annotations.json@image_folder`, DATASETS.REGISTER, the user's
    PATHS_CATALOG, the packaged names. `~` and variables in its paths are expanded. Whether the files exist
    shows when they are read.

    Raises:
        ConfigError: the name is unknown (with the names that resemble it) or its entry is incomplete.
    """
    spec = _look_up(cfg, name)
    try:
        return replace(spec, ann_file=expand_path(spec.ann_file), img_dir=expand_path(spec.img_dir))
    except UsageError as error:
        raise ConfigError(f"data set {name!r}: {error}") from None


def _look_up(cfg: CfgNode, name: str) -> DatasetSpec:
    """Find the entry of a name, its paths as they are written."""
    if "@" in name:
        return _inline(name)
    if name in cfg.DATASETS.REGISTER:
        entry = cfg.DATASETS.REGISTER[name]
        classes = tuple(map(str, entry.get("CLASSES", ())))
        return DatasetSpec(name, entry.KIND, entry.ANN_FILE, entry.IMG_DIR, classes)
    known = packaged_datasets()
    if cfg.PATHS_CATALOG:
        spec = _from_user_catalog(cfg.PATHS_CATALOG, name)
        if spec is not None:
            return spec
    if name in known:
        return known[name]
    near = close_matches(name, [*cfg.DATASETS.REGISTER, *known])
    listed = [n for n in known if "_step" not in n]
    hint = f"did you mean {' or '.join(near)}?" if near else f"packaged names: {', '.join(listed)}."
    raise ConfigError(
        f"unknown data set {shortened(name)}; {hint} Give one of your own as "
        f"kind:annotations.json@image_folder (kind {known_kinds()}) or under DATASETS.REGISTER"
    )


def packaged_datasets() -> dict[str, DatasetSpec]:
    """Return the data sets that are known by name."""
    return {
        name: DatasetSpec(
            name,
            kind,
            f"{ROOT}/{annotations}",
            f"{ROOT}/{images}",
            images=MINI if name.startswith("cityscapes_") and name.endswith("_minival") else 0,
        )
        for name, (kind, annotations, images) in packaged_paths().items()
    }


def _inline(name: str) -> DatasetSpec:
    """Parse `kind:annotations.json@image_folder`; the last part of its path becomes the name in reports."""
    kind, colon, rest = name.partition(":")
    ann_file, _, img_dir = rest.rpartition("@")
    if not colon or kind not in KINDS or not ann_file or not img_dir:
        raise ConfigError(
            f"data set {shortened(name)} is not of the form kind:annotations.json@image_folder "
            f"with kind {known_kinds()}"
        )
    stem = os.path.splitext(os.path.basename(os.path.normpath(ann_file)))[0]
    return DatasetSpec(stem, kind, ann_file, img_dir)


def _from_user_catalog(path: str, name: str) -> DatasetSpec | None:
    """Read an entry of the form {"factory": "COCODataset", "args": {"root": ..., "ann_file": ...}}."""
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
    missing = [k for k in FACTORIES[factory] if k not in args]
    if missing:
        raise ConfigError(f"{path}: data set {name!r} has no args {' and '.join(missing)}")
    if factory == "PascalVOCDataset":
        paths = f"{args['data_dir']}/ImageSets/Main/{args['split']}.txt", f"{args['data_dir']}/JPEGImages"
        return DatasetSpec(name, "voc", *paths)
    if factory == "CityScapesDataset":
        mode = args.get("mode", "mask")
        if mode not in ("poly", "mask"):
            raise ConfigError(f"{path}: data set {name!r} has mode {mode!r}; known: poly, mask")
        objects, images = (str(os.path.join(args[key], args["split"])) for key in ("ann_dir", "img_dir"))
        return DatasetSpec(name, f"cityscapes_{mode}", objects, images, images=int(args.get("mini") or 0))
    kind = "coco" if factory == "COCODataset" else "lvis"
    return DatasetSpec(name, kind, str(args["ann_file"]), str(args["root"]))
