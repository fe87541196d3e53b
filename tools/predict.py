"""Draw what a trained detector finds in pictures.

python tools/predict.py --config-file FILE --weights FILE --out DIR PICTURE ... [--opts KEY VALUE ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from maskrcnn_benchmark.config.catalog import resolve_weight
from maskrcnn_benchmark.config.classes import class_count
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.predictor import Predictor, read_picture, stored_class_names
from maskrcnn_benchmark.utils.cli import run_cli
from maskrcnn_benchmark.utils.comm import get_rank
from maskrcnn_benchmark.utils.files import atomic_path
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.visualize.draw import draw_detections


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE", required=True, help="yaml file of the model")
    parser.add_argument("--weights", metavar="FILE", required=True, help="checkpoint to use")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the drawn pictures")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn")
    parser.add_argument("--scale", type=float, default=1.0, help="enlargement of the drawn pictures")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config overrides")
    return parser.parse_args()


def main() -> None:
    """Parse, predict, draw."""
    args = parse_arguments()
    logger = setup_logger(None, get_rank())
    cfg = load_config(args.config_file, args.opts)
    predictor = Predictor.from_config(cfg, args.weights)
    names = stored_class_names(resolve_weight(cfg, args.weights), class_count(cfg) or 0)
    for path in args.pictures:
        picture = read_picture(path)
        found = predictor(picture)
        drawn = draw_detections(picture, found, names, score_threshold=args.threshold, scale=args.scale)
        target = args.out / f"{path.stem}.png"
        with atomic_path(target) as temporary:
            drawn.save(temporary)
        shown = int((found.get_field("scores") >= args.threshold).sum())
        logger.info(
            "%s: %d objects (%d of at least %g) -> %s", path, len(found), shown, args.threshold, target
        )


if __name__ == "__main__":
    run_cli(main)
