"""Tables and curves of LST runs from their folders, finished or running; several runs side by side.

    python tools/lst_report.py runs/demo
    python tools/lst_report.py runs/demo runs/demo_forgetting --names full none --out report --json runs.json

Writes nothing without --out (PNG curves) and --json.
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.incremental.comparison.runs import (
    comparison_charts,
    comparison_json,
    format_comparison,
    read_run,
    tasks_of,
)
from maskrcnn_benchmark.incremental.reporting.charts import summary_charts
from maskrcnn_benchmark.incremental.reporting.class_history import format_losses, read_class_history
from maskrcnn_benchmark.incremental.reporting.summary import format_summary
from maskrcnn_benchmark.utils.errors import ConfigError, run_cli
from maskrcnn_benchmark.utils.files import expand_path, path_argument, write_json
from maskrcnn_benchmark.visualize.figure import save_figure
from maskrcnn_benchmark.visualize.line_chart import plot_lines


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        type=expand_path,
        help="run folder (OUTPUT_DIR of an LST.ENABLED run)",
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the runs in tables and curves")
    parser.add_argument(
        "--reference",
        default="",
        metavar="RUN",
        type=expand_path,
        help="reference run for intransigence (joint training)",
    )
    parser.add_argument("--out", metavar="DIR", type=path_argument, help="folder of the PNG curves")
    parser.add_argument("--json", metavar="FILE", type=expand_path, help="write all values as JSON")
    return parser.parse_args()


def main() -> None:
    """Parse, read, print, draw."""
    args = parse_arguments()
    names = args.names or [None] * len(args.runs)
    if len(names) != len(args.runs):
        raise ConfigError(f"--names has {len(names)} names for {len(args.runs)} runs")
    runs = [read_run(folder, name, args.reference) for folder, name in zip(args.runs, names, strict=True)]
    if len({run.name for run in runs}) != len(runs):
        raise ConfigError(f"runs have equal names ({', '.join(run.name for run in runs)}): give --names")
    for run in runs:
        print(f"{run.name} ({run.folder})\n\n{format_summary(run.summary, run.plan)}\n")
        for task in tasks_of([run]):
            history = read_class_history(run.folder, run.plan, task)
            print(f"classes that lost most {task} AP:\n{format_losses(history)}\n")
    if len(runs) > 1 or runs[0].running:
        print(format_comparison(runs))
    if args.json:
        write_json(args.json, comparison_json(runs), indent=1)
    if args.out:
        charts = {run.name: summary_charts(run.summary, run.plan) for run in runs}
        if len(runs) > 1:
            charts["comparison"] = comparison_charts(runs)
        for name, run_charts in charts.items():
            if run_charts:
                save_figure(plot_lines(run_charts, columns=min(2, len(run_charts))), args.out / f"{name}.png")
                print(f"drew {args.out / name}.png")


if __name__ == "__main__":
    run_cli(main)
