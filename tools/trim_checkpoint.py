"""Make the start weights of an LST run from a COCO Mask R-CNN checkpoint: remove class-dependent layers.

    python tools/trim_checkpoint.py e2e_mask_rcnn_R_50_FPN_1x.pth e2e_mask_rcnn_R_50_FPN_1x_trimmed.pth
    python tools/trim_checkpoint.py --keep-heads base/model_final.pth base_weights.pth

The result holds weights only: no optimizer, schedule or iteration. Names may begin with "module." or not.
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.checkpoint.trim import CLASS_LAYERS, trim_checkpoint
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import expand_path
from maskrcnn_benchmark.utils.logger import setup_logger


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        metavar="CHECKPOINT",
        type=expand_path,
        help="checkpoint of maskrcnn-benchmark or of this package",
    )
    parser.add_argument("target", metavar="OUT", type=expand_path, help="weight file to write")
    parser.add_argument("--keep-heads", action="store_true", help="remove no layer, only the training state")
    return parser.parse_args()


def main() -> None:
    """Parse, trim, list what was removed."""
    args = parse_arguments()
    logger = setup_logger(None, 0)
    removed = trim_checkpoint(args.source, args.target, () if args.keep_heads else CLASS_LAYERS)
    for name in removed:
        logger.info("removed %s", name)
    logger.info("wrote %s", args.target)


if __name__ == "__main__":
    run_cli(main)
