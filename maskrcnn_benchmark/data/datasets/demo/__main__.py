"""Command line: `python -m maskrcnn_benchmark.data.datasets.demo --out DIR`."""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.data.datasets.demo.generate import DemoOptions, generate_demo
from maskrcnn_benchmark.utils.errors import run_cli
from maskrcnn_benchmark.utils.files import expand_path


def main() -> int:
    """Parse the arguments, make the images, say what was made."""
    parser = argparse.ArgumentParser(description="Make the demo data set (LVIS v0.5 annotations).")
    parser.add_argument(
        "--out", type=expand_path, required=True, help="folder for train.json, val.json and images/"
    )
    parser.add_argument("--train", type=int, default=DemoOptions.train, help="training images")
    parser.add_argument("--val", type=int, default=DemoOptions.val, help="validation images")
    parser.add_argument("--size", type=int, default=DemoOptions.size, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=DemoOptions.seed)
    parser.add_argument("--classes", type=int, default=DemoOptions.classes, help="categories (at most 32)")
    args = parser.parse_args()
    options = DemoOptions(args.train, args.val, args.size, args.seed, args.classes)
    made = generate_demo(args.out, options, report=lambda text: print(text, flush=True))
    print(f"demo data in {args.out}" + ("" if made else " is there already, nothing to do"), flush=True)
    return 0


if __name__ == "__main__":
    run_cli(main)
