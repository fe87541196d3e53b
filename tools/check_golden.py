"""Check this code base against reference outputs of the original programs.

    python tools/check_golden.py FOLDER [FOLDER ...]

A folder holds files in the format of the core references (components.json, params/, <model>_eval.json,
...), of the LST references (splits.json, replay.json, model.json, ...) or of the SipMask references
(shapes_*.json, and files recognised by their content); any subset will do, with any names and prefixes of
inputs that the files give. Prints one line per check and a summary; the exit status is 1 when a check fails,
2 when a folder cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))

from checks.checker import Check
from checks.run import passed, run_folder, summary
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import write_json

NAME_WIDTH = 64


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--fast", action="store_true", help="leave out the layer of 157 million parameters")
    parser.add_argument("--only", default="", metavar="TEXT", help="only files whose name contains TEXT")
    parser.add_argument("--failures", action="store_true", help="print only checks that are not ok")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all checks to FILE as well")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads of torch (default: as torch chooses)"
    )
    return parser.parse_args()


def main() -> int:
    """Run all folders; 0 if every check that could be made passed, else 1."""
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    every: list[Check] = []
    for folder in args.folders:
        print(f"== {folder}", flush=True)
        checks: list[Check] = []
        for check in run_folder(folder, fast=args.fast, only=args.only):
            checks.append(check)
            if not args.failures or check.status != "ok":
                print(check.line(NAME_WIDTH), flush=True)
        print(f"-- {folder}: {summary(checks)}", flush=True)
        every += checks
    if len(args.folders) > 1:
        print(f"All folders: {summary(every)}")
    if args.json is not None:
        write_json(args.json, [vars(check) for check in every], indent=1)
    return 0 if passed(every) else 1


if __name__ == "__main__":
    run_cli(main)
