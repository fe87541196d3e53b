"""Detect objects in images, folders of images, videos or camera frames, and draw the detections.

python tools/predict.py --config-file FILE --weights FILE --out DIR IMAGE|FOLDER|ZIP|URL|VIDEO ...

--json FILE writes the detections, --fps measures the speed instead; see docs/predict.md.
"""

from __future__ import annotations

import argparse
from functools import partial

from maskrcnn_benchmark.config.catalog import resolve_weight
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.config.models import class_count
from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.engine.acceleration import capture_cuda_graphs, compile_dense_parts
from maskrcnn_benchmark.engine.fps import measure_fps
from maskrcnn_benchmark.engine.frames import find_sources
from maskrcnn_benchmark.engine.outputs import PredictionFile
from maskrcnn_benchmark.engine.prediction_run import PredictionRun
from maskrcnn_benchmark.engine.predictor import Predictor, stored_classes
from maskrcnn_benchmark.utils.comm import get_rank
from maskrcnn_benchmark.utils.errors import UsageError, run_cli
from maskrcnn_benchmark.utils.files import expand_path, path_argument, write_json
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.video import Window
from maskrcnn_benchmark.visualize.draw import draw_detections


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", metavar="FILE", type=expand_path, required=True, help="yaml file of the model"
    )
    parser.add_argument(
        "--weights", metavar="FILE", type=expand_path, help="checkpoint; --fps also works without one"
    )
    parser.add_argument("inputs", nargs="*", type=expand_path, metavar="IMAGE|FOLDER|ZIP|URL|VIDEO")
    parser.add_argument("--webcam", metavar="N", type=int, help="camera of this index (0: the first)")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N images or frames")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", metavar="DIR", type=path_argument, help="folder of drawn images (PNG) and videos (mp4)"
    )
    output.add_argument("--json", metavar="FILE", type=path_argument, help="detections, or results of --fps")
    output.add_argument("--show", action="store_true", help="show the drawn images in a window (q: stop)")
    output.add_argument("--no-draw", action="store_true", help="draw nothing")
    output.add_argument("--threshold", type=float, default=0.5, help="min score of a detection (default 0.5)")
    output.add_argument("--scale", type=float, default=1.0, help="scale factor of the drawn images")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--fps", action="store_true", help="print milliseconds per stage; write no images")
    speed.add_argument("--warmup", metavar="N", type=int, default=5, help="--fps: images before measuring")
    speed.add_argument("--repeat", metavar="N", type=int, default=30, help="--fps: images that are measured")
    speed.add_argument("--compile", action="store_true", help="compile backbone and head with torch.compile")
    speed.add_argument("--cuda-graphs", action="store_true", help="replay backbone and head (one image size)")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config overrides")
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UsageError for options that exclude each other."""
    if args.weights is None and not args.fps:
        raise UsageError("--weights FILE is missing: give the checkpoint of a trained model")
    if args.no_draw and (args.show or args.out is not None):
        raise UsageError("--no-draw excludes --out and --show: leave one of them out")
    if not (args.fps or args.out or args.json or args.show):
        raise UsageError("no output is requested: give --out DIR, --json FILE or --show")
    if args.compile and args.cuda_graphs:
        raise UsageError("--compile and --cuda-graphs exclude each other: choose one")
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit must be at least 1, got {args.limit}")


def main() -> int:
    """Parse, then predict or measure."""
    args = parse_arguments()
    logger = setup_logger(None, get_rank())
    check_arguments(args)
    cfg = load_config(args.config_file, args.opts)
    sources = find_sources(args.inputs, args.webcam, args.limit, ImageOptions.from_cfg(cfg))
    window = Window("predict") if args.show else None
    predictor = Predictor.from_config(cfg, args.weights)
    predictor.min_score = args.threshold
    if args.compile:
        compile_dense_parts(predictor)
    if args.cuda_graphs:
        capture_cuda_graphs(predictor)
    names, categories = [str(i) for i in range(class_count(cfg) or 0)], list(range(class_count(cfg) or 0))
    if args.weights is None:
        logger.warning("no --weights: measuring with random weights, which may give more or fewer detections")
    else:
        names, categories = stored_classes(resolve_weight(cfg, args.weights), len(names))
    style = {"class_names": names, "score_threshold": args.threshold, "scale": args.scale}
    draw = None if args.no_draw else partial(draw_detections, **style)
    if args.fps:
        report = measure_fps(predictor, sources[0], draw, warmup=args.warmup, repeat=args.repeat)
        logger.info("%s\n%s", sources[0].name, report.table())
        if args.json:
            write_json(args.json, report.to_json(), indent=2)
        return 0
    results = PredictionFile(names, categories) if args.json else None
    shown = draw if args.out or window else None
    run = PredictionRun(predictor, draw=shown, out=args.out, results=results, window=window)
    summary = run.run(sources)
    if results is not None:
        results.write(args.json)
    if summary.unreadable:
        logger.error("%d inputs could not be read, %d were processed", summary.unreadable, summary.frames)
    return summary.exit_code()


if __name__ == "__main__":
    run_cli(main)
