"""Keep the first images of a COCO or LVIS annotation file: the lowest ids among images with objects.

python tools/subset_annotations.py annotations.json --images 100 --out first_100.json
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.data.datasets.annotations import first_images
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import expand_path, read_json, write_json


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", type=expand_path, help="annotation file")
    parser.add_argument("--images", "--pictures", type=int, required=True, help="number of images to keep")
    parser.add_argument("--out", metavar="FILE", type=expand_path, required=True, help="file to write")
    return parser.parse_args()


def main() -> None:
    """Read, choose, write."""
    args = parse_arguments()
    kept = first_images(read_json(args.file, what="annotation file"), args.images)
    write_json(args.out, kept)
    print(f"{args.out}: {len(kept['images'])} images, {len(kept['annotations'])} objects")


if __name__ == "__main__":
    run_cli(main)
