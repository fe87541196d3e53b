"""Write docs/model_zoo.md: every config with its model, schedule and published result.

    python docs/make_model_zoo.py

The published numbers are those of docs/published_results.json; all else is read from the configs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.files import read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "model_zoo.md"
# Folder of configs -> heading and source of the published numbers.
SECTIONS = {
    "": ("Faster, Mask and Keypoint R-CNN, RPN", "MODEL_ZOO.md of maskrcnn-benchmark, COCO minival"),
    "caffe2": ("The same models with Detectron's weights", ""),
    "gn_baselines": ("Group norm", ""),
    "dcn": ("Deformable convolution", ""),
    "retinanet": ("RetinaNet", ""),
    "fcos": ("FCOS", "README of FCOS, COCO minival"),
    "sipmask": ("SipMask", "README of SipMask, COCO val2017"),
    "lst": ("LST on LVIS v0.5, COCO sample and demo data", ""),
    "pascal_voc": ("Pascal VOC", ""),
    "cityscapes": ("Cityscapes", ""),
    "torchvision": ("Backbones of torchvision", ""),
    "test_time_aug": ("Test-time augmentation", ""),
    "quick_schedules": ("Short schedules", ""),
}
_INTRO = """# Model zoo

Made by `python docs/make_model_zoo.py` from the files in `configs/` and the published numbers in
[published_results.json](published_results.json); a test keeps it true. AP is what the authors of the
originals report for their weights, which load unchanged; a dash means that no number was published for
the file. "Parameters" counts all weights in millions; "images" is the batch of one iteration, to which the
learning rate belongs.
"""
_HEAD = ("config", "backbone", "parameters", "images", "iterations", "box AP", "mask AP", "keypoint AP")


def _parameters(cfg: CfgNode) -> str:
    """Number of parameters in millions, or why there is none."""
    if cfg.MODEL.BACKBONE.CONV_BODY == "FBNet":
        return "not provided"
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHT = ""
    with torch.device("meta"):
        model = build_detection_model(cfg)
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}"


def _backbone(cfg: CfgNode) -> str:
    """The published name of the backbone: ResNeXt says its groups and their width."""
    body, resnet = cfg.MODEL.BACKBONE.CONV_BODY, cfg.MODEL.RESNETS
    if resnet.NUM_GROUPS == 1 or not body.startswith("R-"):
        return body
    return f"X{body[1:]} {resnet.NUM_GROUPS}x{resnet.WIDTH_PER_GROUP}d"


def _row(name: str, published: dict[str, Any], parameters: bool) -> str:
    cfg = load_config(ROOT / "configs" / f"{name}.yaml")
    iterations = str(cfg.SOLVER.MAX_ITER)
    if cfg.LST.ENABLED:
        steps = f", then {cfg.LST.STEP_SIZE} each" if cfg.LST.STEP_SIZE else " at once"
        iterations = f"{cfg.LST.BASE_SIZE} classes{steps}"
    ap = [str(published.get(task, "-")) for task in ("box", "mask", "keypoint")]
    cells = [
        f"[{Path(name).name}](../configs/{name}.yaml)",
        _backbone(cfg),
        _parameters(cfg) if parameters else "",
        str(cfg.SOLVER.IMS_PER_BATCH),
        iterations,
        *ap,
    ]
    return f"| {' | '.join(cells)} |"


def page(*, parameters: bool = True) -> str:
    """The whole text of docs/model_zoo.md, with `parameters` False without counts, which need every model."""
    results = read_json(ROOT / "docs" / "published_results.json", what="published results")
    parts = [_INTRO]
    for folder, (heading, source) in SECTIONS.items():
        files = sorted((ROOT / "configs" / folder).glob("*.yaml"))
        names = [str(p.relative_to(ROOT / "configs").with_suffix("")) for p in files]
        parts.append(f"\n## {heading}\n")
        if source:
            parts.append(f"Published numbers: {source}.\n")
        parts.append(
            "| config | backbone | parameters | images | iterations | box AP | mask AP | keypoint AP |"
        )
        parts.append("|---|---|---|---|---|---|---|---|")
        parts += [_row(name, results.get(name, {}), parameters) for name in names]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    write_text(PAGE, page())


if __name__ == "__main__":
    main()
