"""Test a trained detector: AP tables on the terminal, result files in OUTPUT_DIR/inference.

    python tools/test_net.py --config-file configs/FILE.yaml [--ckpt FILE] KEY VALUE ...
    python tools/test_net.py --config-file configs/lst/FILE.yaml [--phase N] KEY VALUE ...

Without --ckpt, the last checkpoint in OUTPUT_DIR is tested, else MODEL.WEIGHT. With LST.ENABLED the model of
a phase (default: the last finished one) is tested and the per-phase AP table is printed; so it is for a
single phase of configs/lst/released, whose annotation files name the phase of every class.
"""

from __future__ import annotations

import argparse

from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.launch import add_launch_arguments, distributed
from maskrcnn_benchmark.engine.train_and_test import load_test_weights, test_plain
from maskrcnn_benchmark.evaluation.report import EvaluationReport, format_classes
from maskrcnn_benchmark.incremental.pipeline.scheduler import test_phase
from maskrcnn_benchmark.incremental.released.run import is_released, test_released
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.comm import get_rank, is_main_process
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import expand_path
from maskrcnn_benchmark.utils.logger import setup_logger


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", metavar="FILE", type=expand_path, required=True, help="yaml file, see configs/"
    )
    parser.add_argument(
        "--ckpt", metavar="FILE", type=expand_path, help="weights to test (one-phase configs)"
    )
    parser.add_argument("--phase", type=int, help="phase to test (LST configs); 0 is the base phase")
    parser.add_argument("--per-class", action="store_true", help="also print AP of every class, best first")
    add_launch_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    return parser.parse_intermixed_args()


def main() -> None:
    """Parse, join the process group, test."""
    args = parse_arguments()
    cfg = load_config(args.config_file, args.opts)
    with distributed(cfg.MODEL.DEVICE, args.local_rank):
        setup_logger(cfg.OUTPUT_DIR, get_rank())
        reports = _test(cfg, args)
        if args.per_class and is_main_process():
            print("\n\n".join(format_classes(report) for report in reports))


def _test(cfg: CfgNode, args: argparse.Namespace) -> list[EvaluationReport]:
    """Test what the config asks for."""
    if cfg.LST.ENABLED:
        return [test_phase(cfg, args.phase)]
    if is_released(cfg):
        return list(test_released(cfg, args.ckpt).values())
    model = build_detection_model(cfg)
    load_test_weights(cfg, model, args.ckpt)
    return list(test_plain(cfg, model).values())


if __name__ == "__main__":
    run_cli(main)
