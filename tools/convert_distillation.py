"""Convert stored teacher outputs between the released JSON file and a store; float32 survives exactly.

    python tools/convert_distillation.py distill_logits_step1_160.json distill_step1 \\
        --plan split/classes.json --train lvis_v0.5_train_step1.json --phase 1
    python tools/convert_distillation.py distill_step1 distill_logits_step1_160.json

A folder is a store, anything else the JSON file. That file has image ids only; --plan, --train and --phase
name the annotations of the step to which its values belong.
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.incremental.distillation.json_files import (
    check_store_complete,
    export_logits,
    import_logits,
    new_box_ids,
)
from maskrcnn_benchmark.incremental.distillation.store import DTYPES, DistillHeader, DistillStore
from maskrcnn_benchmark.incremental.plan.phases import read_plan
from maskrcnn_benchmark.utils.errors import ConfigError, run_cli
from maskrcnn_benchmark.utils.files import expand_path, path_argument
from maskrcnn_benchmark.utils.logger import setup_logger


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="FROM", type=path_argument, help="JSON file, or folder of a store")
    parser.add_argument("target", metavar="TO", type=path_argument, help="folder of a store, or JSON file")
    parser.add_argument(
        "--plan",
        metavar="FILE",
        type=expand_path,
        help="classes.json of tools/lvis_split.py, or a run folder",
    )
    parser.add_argument(
        "--train", metavar="FILE", type=expand_path, help="training annotations: all, or those of the step"
    )
    parser.add_argument("--phase", type=int, default=1, help="index of the step (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="dtype of the store (%(default)s)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1333), metavar=("SHORT", "LONG"), help="image size"
    )
    return parser.parse_args()


def to_store(args: argparse.Namespace) -> DistillStore:
    """Convert the released file."""
    if args.plan is None or args.train is None:
        raise ConfigError(
            f"{args.source} is no folder, so a released JSON file: give --plan, --train and --phase"
        )
    plan = read_plan(args.plan)
    plan.check_step(args.phase)
    data = AnnotationFile.load(args.train).outline
    boxes = new_box_ids(data, plan.seen_ids(args.phase), plan.num_old(args.phase))
    header = DistillHeader(
        phase=args.phase,
        num_old=plan.num_old(args.phase),
        classes_hash=plan.classes_hash(args.phase - 1),
        checkpoint="",
        input_size=(args.size[0], args.size[1]),
        flips=(0, 1),
        dtype=args.dtype,
    )
    store = import_logits(args.source, args.target, header, boxes)
    check_store_complete(store, boxes)
    return store


def main() -> None:
    """Parse, convert, print what was written."""
    args = parse_arguments()
    logger = setup_logger(None, 0)
    if args.source.is_dir():
        store = DistillStore(args.source)
        export_logits(store, args.target)
        if store.header.dtype != "float32":
            logger.warning("the store holds %s: the file has its rounded values", store.header.dtype)
    else:
        store = to_store(args)
    logger.info("wrote %s: %d images, %d old classes", args.target, len(store), store.header.num_old)


if __name__ == "__main__":
    run_cli(main)
