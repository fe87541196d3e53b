"""Train a detector, at once or (LST.ENABLED) phase by phase; then test it.

    python tools/train_net.py --config-file configs/FILE.yaml [--skip-test] KEY VALUE ...
    python tools/train_net.py --config-file configs/lst/released/step1.yaml  # one phase from released files
    torchrun --nproc_per_node N tools/train_net.py --config-file configs/FILE.yaml KEY VALUE ...

The same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import logging

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.launch import add_launch_arguments, distributed
from maskrcnn_benchmark.engine.train_and_test import test_plain, train_plain
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.incremental.released.run import is_released, run_released
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size
from maskrcnn_benchmark.utils.env import versions
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
    parser.add_argument("--skip-test", action="store_true", help="do not test after training")
    add_launch_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    return parser.parse_intermixed_args()


def main() -> None:
    """Parse, join the process group, train, test."""
    args = parse_arguments()
    cfg = load_config(args.config_file, args.opts)
    with distributed(cfg.MODEL.DEVICE, args.local_rank) as device:
        logger = setup_logger(cfg.OUTPUT_DIR, get_rank())
        what = ", ".join(f"{name} {version}" for name, version in versions().items())
        logger.info("%s on %s, %d process(es); %s", args.config_file, device, get_world_size(), what)
        if cfg.LST.ENABLED:
            run_lst(cfg)
            return
        if is_released(cfg):
            run_released(cfg, test=not args.skip_test)
            return
        model, summary = train_plain(cfg, tested_after=not args.skip_test)
        logger.info("trained %s: %d iterations", summary.weights, summary.iterations)
        if cfg.DATASETS.TEST and not args.skip_test:
            test_plain(cfg, model)
    logging.shutdown()


if __name__ == "__main__":
    run_cli(main)
