"""Look into a weight file, convert it between families, and check that a model takes it.

    python tools/import_weights.py weights.pth
    python tools/import_weights.py maskrcnn_resnet50_fpn.pth --out ours.pth \\
        --config-file configs/e2e_mask_rcnn_R_50_FPN_1x.yaml MODEL.ROI_BOX_HEAD.NUM_CLASSES 91
    python tools/import_weights.py runs/x/model_final.pth --to torchvision --out theirs.pth
    python tools/import_weights.py runs/sipmask/model_final.pth --to mmdetection --out theirs.pth
    python tools/import_weights.py other_mobilenet.pt --by-order --out backbone.pth \\
        --config-file configs/torchvision/mask_rcnn_mobilenet_v2_FPN_1x.yaml

Reads the published families of weight files (docs/weights.md); nothing in them is executed. With
--config-file the result is loaded into that model; exit status 1 when shapes differ or a tensor of the model
is not in the file (--by-order: of the backbone).
"""

from __future__ import annotations

import argparse

import torch

from maskrcnn_benchmark.checkpoint.convert import convert_file, describe_file, verify, with_class_list
from maskrcnn_benchmark.checkpoint.families.table import export_names
from maskrcnn_benchmark.checkpoint.io import save_atomic
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.errors import ConfigError, run_cli
from maskrcnn_benchmark.utils.files import expand_path


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", type=expand_path, help="weight file")
    parser.add_argument("--out", metavar="FILE", type=expand_path, help="write the converted tensors")
    parser.add_argument("--to", choices=export_names(), default="ours", help="names to write")
    parser.add_argument(
        "--by-order", action="store_true", help="pair tensors with those of the backbone by order and shape"
    )
    parser.add_argument(
        "--config-file", metavar="FILE", type=expand_path, help="model that the result must fit"
    )
    parser.add_argument("--shapes", action="store_true", help="list every tensor")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    return parser.parse_intermixed_args()


def main() -> int:
    """Describe, convert, verify, write."""
    args = parse_arguments()
    cfg = load_config(args.config_file, args.opts)
    print(describe_file(args.file, shapes=args.shapes))
    if not (args.out or args.config_file):
        return 0
    if args.by_order and not args.config_file:
        raise ConfigError("--by-order needs --config-file, whose backbone gives the names")
    model = None
    if args.config_file:
        with torch.device("meta"):
            model = build_detection_model(cfg)
    state = convert_file(
        args.file,
        to=args.to,
        conv_body=cfg.MODEL.BACKBONE.CONV_BODY,
        backbone=model.get_submodule("backbone.body").state_dict()
        if args.by_order and model is not None
        else None,
    )
    fits = True
    if model is not None and args.to == "ours":
        lines, fits = verify(model, state, backbone_only=args.by_order)
        print("\n".join(lines))
    if args.out:
        listed = args.to == "ours" and not args.by_order
        save_atomic(with_class_list(args.file, state) if listed else state, args.out)
        print(f"wrote {len(state)} tensors to {args.out}")
    return 0 if fits else 1


if __name__ == "__main__":
    run_cli(main)
