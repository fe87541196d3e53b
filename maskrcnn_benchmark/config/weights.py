"""Resolve names of weights: `catalog://NAME` becomes the address of a published file.

The table is that of maskrcnn-benchmark (maskrcnn_benchmark/config/paths_catalog.py).
"""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.user_catalog import load_user_catalog
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import expand_path
from maskrcnn_benchmark.utils.registry import close_matches
from maskrcnn_benchmark.utils.text import shortened_text

PREFIX = "catalog://"
BASE_URL = "https://dl.fbaipublicfiles.com/detectron"
IMAGENET = {
    "MSRA/R-50": "ImageNetPretrained/MSRA/R-50.pkl",
    "MSRA/R-101": "ImageNetPretrained/MSRA/R-101.pkl",
    "MSRA/R-50-GN": "ImageNetPretrained/47261647/R-50-GN.pkl",
    "MSRA/R-101-GN": "ImageNetPretrained/47592356/R-101-GN.pkl",
    "FAIR/20171220/X-101-32x8d": "ImageNetPretrained/20171220/X-101-32x8d.pkl",
    "FAIR/20171220/X-101-64x4d": "ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
}
DETECTRON = {
    "35857197/e2e_faster_rcnn_R-50-C4_1x": "01_33_49.iAX0mXvW",
    "35857345/e2e_faster_rcnn_R-50-FPN_1x": "01_36_30.cUF7QR7I",
    "35857890/e2e_faster_rcnn_R-101-FPN_1x": "01_38_50.sNxI7sX7",
    "36761737/e2e_faster_rcnn_X-101-32x8d-FPN_1x": "06_31_39.5MIHi1fZ",
    "35858791/e2e_mask_rcnn_R-50-C4_1x": "01_45_57.ZgkA7hPB",
    "35858933/e2e_mask_rcnn_R-50-FPN_1x": "01_48_14.DzEQe4wC",
    "35861795/e2e_mask_rcnn_R-101-FPN_1x": "02_31_37.KqyEK4tT",
    "36761843/e2e_mask_rcnn_X-101-32x8d-FPN_1x": "06_35_59.RZotkLKI",
    "37129812/e2e_mask_rcnn_X-152-32x8d-FPN-IN5k_1.44x": "09_35_36.8pzTQKYK",
    "37697547/e2e_keypoint_rcnn_R-50-FPN_1x": "08_42_54.kdzV35ao",
}


def resolve_weight(cfg: CfgNode, value: str) -> str:
    """Return the path (expanded) or address of a weight file: catalog names become addresses.

    With PATHS_CATALOG its `ModelCatalog.get` is asked first.

    Raises:
        ConfigError: unknown catalog name, with the names that resemble it.
    """
    if not value.startswith(PREFIX):
        return expand_path(value)
    name = value[len(PREFIX) :]
    if cfg.PATHS_CATALOG:
        catalog = getattr(load_user_catalog(cfg.PATHS_CATALOG), "ModelCatalog", None)
        if catalog is not None:
            try:
                return str(catalog.get(name))
            except (RuntimeError, KeyError):  # how published catalogs say that they do not know a name
                pass
    known = packaged_weights()
    if name in known:
        return known[name]
    near = [PREFIX + n for n in close_matches(name, list(known))]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(PREFIX + n for n in known)}"
    raise ConfigError(f"unknown weights {shortened_text(value)}; {hint}")


def packaged_weights() -> dict[str, str]:
    """Return the address of every catalog name (without `catalog://`)."""
    table = {f"ImageNetPretrained/{key}": f"{BASE_URL}/{file}" for key, file in IMAGENET.items()}
    for key, signature in DETECTRON.items():
        number, model = key.split("/")
        tag = "keypoints_" if "keypoint" in model else ""
        data = f"{tag}coco_2014_train%3A{tag}coco_2014_valminusminival"
        table[f"Caffe2Detectron/COCO/{key}"] = (
            f"{BASE_URL}/{number}/12_2017_baselines/{model}.yaml.{signature}/output/train/{data}"
            "/generalized_rcnn/model_final.pkl"
        )
    return table
