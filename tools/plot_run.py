"""Draw the losses of a training run, and its AP where it was tested during training (SOLVER.TEST_PERIOD).

python tools/plot_run.py runs/mine --out curves.png
"""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.engine.run_chart import plot_run
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import path_argument
from maskrcnn_benchmark.visualize.figure import save_figure


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="FOLDER", type=path_argument, help="OUTPUT_DIR of the run")
    parser.add_argument("--out", metavar="FILE", type=path_argument, required=True, help="PNG file to write")
    return parser.parse_args()


def main() -> None:
    """Plot a run and write the file."""
    args = parse_arguments()
    save_figure(plot_run(args.run), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run_cli(main)
