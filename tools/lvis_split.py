"""Divide LVIS-like data into base and steps: sorted ids, annotation files under the published names, a plan.

    python tools/lvis_split.py --train lvis_v0.5_train.json --val lvis_v0.5_val.json --out split
    python tools/lvis_split.py --train train.json --val val.json --out split --base 40 --steps 20 20
    python tools/lvis_split.py --train train.json --val val.json --out split --order ids.json --plan-only

Writes lvis_sorted_id_{all,base,step_<i>}.json, classes.json (the plan, read by the other tools) and, per
phase, <prefix>_train_<phase>.json and <prefix>_val_<phase>.json, whose categories hold the phase as
step_state (b0, t0, ...). With --phase-folders and --out datasets/lvis/annotations the files are where the
data sets lvis_v0.5_train_step1_160 ... of configs/lst/released expect them.
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.incremental.plan.run_folder import PLAN_FILE
from maskrcnn_benchmark.incremental.plan.split import (
    SORT_KEYS,
    VAL_RULES,
    build_plan,
    check_sorted_ids,
    sorted_category_ids,
)
from maskrcnn_benchmark.incremental.plan.split_files import write_split_files
from maskrcnn_benchmark.incremental.plan.tables import format_phases
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import expand_path, path_argument, read_json, write_json
from maskrcnn_benchmark.utils.logger import setup_logger


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--train", metavar="FILE", type=expand_path, required=True, help="training annotations, all classes"
    )
    parser.add_argument(
        "--val", metavar="FILE", type=expand_path, required=True, help="validation annotations, all classes"
    )
    parser.add_argument("--out", metavar="DIR", type=path_argument, required=True, help="folder of the files")
    parser.add_argument("--base", type=int, default=270, help="classes of the base phase (%(default)s)")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[160], metavar="N", help="one size of all steps, or all sizes"
    )
    parser.add_argument("--sort-by", choices=SORT_KEYS, default=SORT_KEYS[0], help="order (%(default)s)")
    parser.add_argument(
        "--order", metavar="FILE", type=expand_path, help="JSON list of all category ids instead of --sort-by"
    )
    parser.add_argument(
        "--val-images",
        choices=VAL_RULES,
        default="positive",
        help="validation images of a step: all, or as released only those with a seen class (%(default)s)",
    )
    parser.add_argument("--prefix", default="lvis_v0.5", help="prefix of the file names (%(default)s)")
    parser.add_argument(
        "--phase-folders", action="store_true", help="as released: folders lvis_base_270, lvis_step1_160 ..."
    )
    parser.add_argument("--plan-only", action="store_true", help="write no annotation files")
    return parser.parse_args()


def main() -> None:
    """Parse, order, divide, write."""
    args = parse_arguments()
    logger = setup_logger(None, 0)
    train = AnnotationFile.load(args.train)
    if args.order:
        ids = check_sorted_ids(read_json(args.order, what="class order"), train.outline, args.order)
    else:
        ids = sorted_category_ids(train.outline, args.sort_by)
    plan = build_plan(train.outline, ids, args.base, args.steps[0] if len(args.steps) == 1 else args.steps)
    print(format_phases(plan), flush=True)
    if args.plan_only:
        write_json(args.out / PLAN_FILE, plan.to_json(), indent=1)
        return
    val = AnnotationFile.load(args.val)
    written = write_split_files(
        train,
        val,
        plan,
        args.out,
        args.prefix,
        val_rule=args.val_images,
        phase_folders=args.phase_folders,
    )
    logger.info("wrote %d files to %s", len(written), args.out)


if __name__ == "__main__":
    run_cli(main)
