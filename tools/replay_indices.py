"""Balanced replay of a step: write the two released index files, or print its statistics per class.

    python tools/replay_indices.py --plan split --train lvis_v0.5_train.json --phase 1 --statistics
    python tools/replay_indices.py --plan split --train lvis_v0.5_train_step1.json --phase 1 --out split
    python tools/replay_indices.py --plan runs/demo --train datasets/demo/train.json --phase 1 \\
        --out indices --ranks 2 --samples 800 --order scheduler --images-per-rank 2

Writes lvis_indices_qry_step<i>_rand_balanced.json and lvis_classes_qry_step<i>_rand_balanced.json: one list
of --samples values for each of --ranks ranks.
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.incremental.plan.phases import read_plan
from maskrcnn_benchmark.incremental.replay.index_files import (
    published_order,
    scheduler_order,
    write_index_files,
)
from maskrcnn_benchmark.incremental.replay.plan import build_replay_plan
from maskrcnn_benchmark.incremental.replay.statistics import format_statistics, replay_statistics
from maskrcnn_benchmark.utils.errors import ConfigError, run_cli
from maskrcnn_benchmark.utils.files import expand_path, path_argument, write_json
from maskrcnn_benchmark.utils.logger import setup_logger


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--plan",
        metavar="FILE",
        type=expand_path,
        required=True,
        help="classes.json of tools/lvis_split.py, or a run folder",
    )
    parser.add_argument(
        "--train",
        metavar="FILE",
        type=expand_path,
        required=True,
        help="training annotations: all, or those of the step",
    )
    parser.add_argument("--phase", type=int, required=True, help="index of the step, from 1 on")
    parser.add_argument(
        "--min-per-class", type=int, default=1, help="min samples of a class per epoch (%(default)s)"
    )
    parser.add_argument("--statistics", action="store_true", help="print the counts, write no index files")
    parser.add_argument(
        "--json", metavar="FILE", type=expand_path, help="write the counts of every class as JSON"
    )
    parser.add_argument(
        "--rows", type=int, default=10, help="number of first and last classes to print (%(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", type=path_argument, help="folder of the index files")
    parser.add_argument("--ranks", type=int, default=8, help="lists in a file (%(default)s)")
    parser.add_argument("--samples", type=int, default=80000, help="values in a list (%(default)s)")
    parser.add_argument(
        "--order",
        choices=("published", "scheduler"),
        default="published",
        help="published: epochs as in the release; scheduler: the samples of LST.ENABLED, in its order",
    )
    parser.add_argument(
        "--shuffle-seed", type=int, default=0, help="published: seed of the order in a class (%(default)s)"
    )
    parser.add_argument("--in-order", action="store_true", help="published: images of a class by their id")
    parser.add_argument(
        "--images-per-rank", type=int, default=2, help="scheduler: images of a list per batch (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="scheduler: LST.SEED (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Parse, plan, print and write."""
    args = parse_arguments()
    logger = setup_logger(None, 0)
    if args.out is None and not args.statistics:
        raise ConfigError("give --out DIR for the index files, or --statistics")
    if min(args.ranks, args.samples, args.images_per_rank) < 1:
        raise ConfigError("--ranks, --samples and --images-per-rank must be at least 1")
    plan = read_plan(args.plan)
    plan.check_step(args.phase)
    annotations = AnnotationFile.load(args.train).outline["annotations"]
    replay = build_replay_plan(annotations, plan, args.phase, minimum=args.min_per_class)
    statistics = replay_statistics(replay, plan)
    print(format_statistics(statistics, args.rows), flush=True)
    if args.json:
        write_json(args.json, statistics, indent=1)
    if args.statistics:
        return
    if args.order == "scheduler":
        arrays = scheduler_order(replay, args.ranks, args.samples, args.images_per_rank, args.seed)
    else:
        arrays = published_order(
            replay, args.ranks, args.samples, None if args.in_order else args.shuffle_seed
        )
    for path in write_index_files(args.out, args.phase, *arrays):
        logger.info("wrote %s: %d lists of %d", path, args.ranks, args.samples)


if __name__ == "__main__":
    run_cli(main)
