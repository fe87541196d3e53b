"""Train variants of an LST run with several seeds and tabulate the effect of each part of the method.

    python tools/lst_ablation.py configs/ablations/demo.yaml --out runs/ablation --jobs 2
    python tools/lst_ablation.py configs/ablations/demo.yaml --out runs/ablation --table
    python tools/lst_ablation.py FILE --out FOLDER [--docs docs/ablation.md] KEY VALUE ...

Results: FOLDER/ablation.{json,md,png} and ablation_course.png. Finished runs are skipped, so that the same
command resumes an interrupted ablation; KEY VALUE pairs hold for all runs. Each run is a separate process
with --threads threads and logs into its folder. Runs with the same base phase and seed share it.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from maskrcnn_benchmark.incremental.comparison.ablation import plan_runs, read_ablation, run_ablation
from maskrcnn_benchmark.incremental.comparison.ablation_table import (
    build_table,
    insert_into_page,
    to_markdown,
    write_table,
)
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import path_argument
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.processes import ProcessRunner

FENCE = "`" * 3  # of a code block in markdown


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", type=path_argument, help="yaml file with the variants, see configs/ablations/"
    )
    parser.add_argument(
        "--out", type=path_argument, required=True, metavar="FOLDER", help="folder of all runs"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run")
    parser.add_argument("--seeds", metavar="0,1,...", help="other seeds than those of the file")
    parser.add_argument("--table", action="store_true", help="train nothing, tabulate what is finished")
    parser.add_argument(
        "--docs", type=path_argument, metavar="PAGE", help="write table and images into this page"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides of all runs")
    return parser.parse_intermixed_args()


def main() -> None:
    """Parse, run what is not finished, tabulate."""
    args = parse_arguments()
    logger = setup_logger(str(args.out), 0)
    ablation = replace(read_ablation(args.file), last=tuple(args.opts))
    if args.seeds:
        ablation = replace(ablation, seeds=tuple(int(seed) for seed in args.seeds.split(",")))
    runs = plan_runs(ablation, args.out)
    if not args.table:
        train = [sys.executable, str(Path(__file__).with_name("train_net.py")), "--config-file"]
        runner = ProcessRunner(threads=args.threads)

        def start(config: Path) -> None:
            runner.run([*train, str(config)], config.with_name("output.txt"))

        run_ablation(runs, start, args.jobs, runner.stop)
    table = build_table(ablation, runs)
    images = write_table(table, args.out)
    logger.info("%s\n\nwritten to %s", to_markdown(table), args.out)
    if args.docs:
        folder = args.docs.parent / "images"
        for image in images:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, folder / image.name)
        links = "\n".join(f"![{p.stem.replace('_', ' ')}](images/{p.name})" for p in images)
        command = shlex.join(["python", *sys.argv])
        insert_into_page(args.docs, f"{FENCE}\n{command}\n{FENCE}\n\n{to_markdown(table)}\n\n{links}")


if __name__ == "__main__":
    run_cli(main)
