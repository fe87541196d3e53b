"""Write the fine annotations of Cityscapes as COCO-format files, one per split.

    python tools/convert_cityscapes.py
    python tools/convert_cityscapes.py --gt FOLDER/gtFine --out annotations --splits val --form poly

Reads <gt>/<split>/<city>/*_gtFine_{instanceIds.png,polygons.json} and writes
<out>/instancesonly_filtered_gtFine_<split>.json: objects of the eight classes, groups as crowds, and per
image the region that evaluation ignores. Image names are <split>/<city>/..._leftImg8bit.png, so the
image folder is leftImg8bit. The files are read as kind coco (COCO AP) or cityscapes (AP of the benchmark).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from maskrcnn_benchmark.data.datasets.cityscapes import load_cityscapes
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import path_argument, write_json
from maskrcnn_benchmark.utils.logger import setup_logger


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gt",
        metavar="DIR",
        type=path_argument,
        default=Path("datasets/cityscapes/gtFine"),
        help="(%(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=path_argument,
        default=Path("datasets/cityscapes/annotations"),
        help="folder of the files (%(default)s)",
    )
    parser.add_argument("--splits", nargs="+", default=["train", "val"], metavar="SPLIT", help="train, val")
    parser.add_argument(
        "--form",
        choices=("mask", "poly"),
        default="mask",
        help="masks from the instance id images (disjoint, as RLE) or polygons (%(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    """Parse, read, write, count."""
    args = parse_arguments()
    logger = setup_logger(None, 0)
    for split in args.splits:
        file = load_cityscapes(str(args.gt / split), args.form, prefix=f"{split}/")
        target = args.out / f"instancesonly_filtered_gtFine_{split}.json"
        write_json(target, file.raw)
        groups = int(file.columns.crowd.sum())
        logger.info(
            "wrote %s: %d images, %d objects, %d group regions",
            target,
            len(file.images),
            len(file.columns) - groups,
            groups,
        )


if __name__ == "__main__":
    run_cli(main)
