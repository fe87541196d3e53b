"""Make the start checkpoint of a step: its classes are appended to the model of the phase before.

    python tools/grow_checkpoint.py base/model_final.pth step1/init.pth --plan split/classes.json --phase 1
    python tools/grow_checkpoint.py released_base.pth step1_init.pth --add 160

With --plan the class names are checked and stored. The same --seed and --phase give the class
weights that the scheduler samples (LST.SEED). Optimizer, schedule and iteration are dropped; old parameters
are copied bit for bit.
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.incremental.growth.checkpoint import add_classes, grow_checkpoint
from maskrcnn_benchmark.incremental.plan.phases import read_plan
from maskrcnn_benchmark.utils.errors import ConfigError, run_cli
from maskrcnn_benchmark.utils.files import expand_path
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.rng import generator


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", metavar="CHECKPOINT", type=expand_path, help="final checkpoint of the phase before"
    )
    parser.add_argument("target", metavar="OUT", type=expand_path, help="start checkpoint of the step")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--plan",
        metavar="FILE",
        type=expand_path,
        help="classes.json of tools/lvis_split.py, or a run folder",
    )
    how.add_argument("--add", type=int, metavar="N", help="number of new classes, whose names are not known")
    parser.add_argument("--phase", type=int, default=1, help="index of the step (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the new parameters (%(default)s)")
    parser.add_argument("--cls-std", type=float, default=0.01, help="of class weights (%(default)s)")
    parser.add_argument(
        "--reg-std", type=float, default=0.001, help="of box regression weights (%(default)s)"
    )
    parser.add_argument(
        "--agnostic-boxes", action="store_true", help="model with MODEL.CLS_AGNOSTIC_BBOX_REG True"
    )
    return parser.parse_args()


def main() -> None:
    """Parse, grow, print what was done."""
    args = parse_arguments()
    logger = setup_logger(None, 0)
    sampling = {
        "cls_std": args.cls_std,
        "reg_std": args.reg_std,
        "generator": generator(args.seed, "grow", args.phase),
        "agnostic_boxes": args.agnostic_boxes,
    }
    if args.plan is None:
        if args.add < 1:
            raise ConfigError(f"--add {args.add}: give at least 1 class")
        old = add_classes(args.source, args.target, args.add, **sampling)
        new = old + args.add
    else:
        plan = read_plan(args.plan)
        plan.check_step(args.phase)
        before, after = plan.names(args.phase - 1), plan.names(args.phase)
        grow_checkpoint(args.source, args.target, old_names=before, new_names=after, **sampling)
        old, new = len(before), len(after)
    logger.info("wrote %s: %d outputs, %d of them new (with background)", args.target, new, new - old)


if __name__ == "__main__":
    run_cli(main)
