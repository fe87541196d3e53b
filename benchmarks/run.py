"""Speed and memory beside peers.

    python benchmarks/run.py SUITE [--device cpu|cuda] [--json FILE] [--quick]

A suite is a module of this folder with `measure(device, quick) -> list[dict]`: one dict of plain values per
row, all with the same keys, which are the columns of the table.
"""

from __future__ import annotations

import argparse
import importlib
import platform
from pathlib import Path
from types import ModuleType

import torch

from maskrcnn_benchmark.utils.env import resolve_device
from maskrcnn_benchmark.utils.errors import UsageError, run_cli
from maskrcnn_benchmark.utils.files import write_json
from maskrcnn_benchmark.utils.table import format_table

SUITES = {
    "ops": "native operations beside torchvision's",
    "model": "inference and training step beside torchvision's Mask R-CNN",
    "data": "annotation index, decoding, transforms, mask targets",
    "eval": "average precision beside pycocotools and lvis",
    "lst": "stages of a phase, cost of many classes",
    "sipmask": "inference of SipMask by stage, memory of its masks",
}


def load_suite(name: str) -> ModuleType:
    """The module of a suite. Raises UsageError for an unknown name and for a module that is missing."""
    here = Path(__file__).resolve().parent
    present = [suite for suite in SUITES if (here / f"{suite}.py").is_file()]
    if name not in SUITES:
        raise UsageError(f"unknown suite {name!r}; there are: {', '.join(present)}")
    if name not in present:
        raise UsageError(
            f"suite {name!r} ({SUITES[name]}) is not in this checkout: benchmarks/{name}.py is missing; "
            f"there are: {', '.join(present)}"
        )
    return importlib.import_module(name)


def describe_device(device: torch.device) -> dict[str, str | int]:
    """Device, threads and torch version, for the table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description="Speed and memory beside peers.")
    parser.add_argument("suite", help="; ".join(f"{name}: {what}" for name, what in SUITES.items()))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", metavar="FILE", help="write the rows here as well")
    parser.add_argument("--quick", action="store_true", help="smallest size, few repetitions")
    args = parser.parse_args()
    suite = load_suite(args.suite)
    device = resolve_device(args.device)
    environment = describe_device(device)
    print(", ".join(f"{key}: {value}" for key, value in environment.items()), flush=True)
    rows = suite.measure(device, args.quick)
    print(format_table(list(rows[0]), [list(row.values()) for row in rows]))
    if args.json:
        write_json(args.json, {"suite": args.suite, "machine": environment, "rows": rows}, indent=2)


if __name__ == "__main__":
    run_cli(main)
