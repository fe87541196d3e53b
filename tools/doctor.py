"""Explain a configuration and check it against data, weights and device before training.

    python tools/doctor.py --config-file configs/FILE.yaml [KEY VALUE ...]

Prints all settings that differ from their defaults, the results of the checks, and a summary. Exit status 1
when there are errors, else 0. docs/doctor.md explains the report.
"""

from __future__ import annotations

import argparse
import logging

from maskrcnn_benchmark.doctor.report import format_doctor_report, report_json
from maskrcnn_benchmark.doctor.run import examine
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import expand_path, write_json
from maskrcnn_benchmark.utils.logger import NAME


def parse_arguments() -> argparse.Namespace:
    """Command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", metavar="FILE", type=expand_path, required=True, help="yaml file, see configs/"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=expand_path,
        default="",
        help="check this file instead of MODEL.WEIGHT",
    )
    parser.add_argument("--json", metavar="FILE", type=expand_path, help="write the report as JSON too")
    parser.add_argument(
        "--quick", action="store_true", help="read no annotations and no weights; do not estimate memory"
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="processes of the planned run (default: 1)",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    return parser.parse_intermixed_args()


def _positive(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} processes: give at least 1")
    return count


def main() -> int:
    """Parse, examine, print."""
    args = parse_arguments()
    logging.getLogger(NAME).addHandler(logging.NullHandler())  # the report repeats what the log would say
    report = examine(
        args.config_file, args.opts, weights=args.weights, quick=args.quick, processes=args.processes
    )
    print(format_doctor_report(report))
    if args.json:
        write_json(args.json, report_json(report), indent=1)
    return report.exit_status


if __name__ == "__main__":
    run_cli(main)
