"""Our evaluation beside lvis-api and pycocotools: CPU seconds, peak memory, equality of the arrays.

    python benchmarks/eval.py [--scale 1.0] [--json FILE]

Scale 1 is 2000 images with 1200 categories and 300 detections each for LVIS, 80 categories and 100 detections
for COCO. Each measurement runs in a separate process; it starts after the imports and ends with the finished
arrays, the reading of the files included. `process_s` includes the imports too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CASES = (("lvis", "segm"), ("lvis", "bbox"), ("coco", "segm"), ("coco", "bbox"))
SETS = {
    "lvis": {"images": 2000, "categories": 1200, "per_image": 300, "federated": True},
    "coco": {"images": 2000, "categories": 80, "per_image": 100, "federated": False},
}
# Highest accepted ratios ours / peer: CPU seconds, peak memory.
LIMITS = {("lvis", "segm"): (0.05, 0.4), ("lvis", "bbox"): (0.05, 0.4)}
COCO_LIMITS = (0.15, 1.0)
Arrays = tuple[Any, Any]


def run(device: str = "cpu", *, scale: float = 1.0, cases: tuple[tuple[str, str], ...] = CASES) -> list[dict]:
    """One row per protocol and IoU type; `device` is only reported, as evaluation runs on the CPU."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for protocol in dict.fromkeys(protocol for protocol, _ in cases):
            folder = Path(name) / protocol
            folder.mkdir()
            _child("make", protocol, str(folder), str(scale))
            for iou_type in (iou for other, iou in cases if other == protocol):
                rows.append(_compare(protocol, iou_type, folder))
    return rows


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Rows for `benchmarks/run.py eval`: all cases at full size, or at a twentieth of it."""
    return run(device.type, scale=0.05 if quick else 1.0)


def _compare(protocol: str, iou_type: str, folder: Path) -> dict[str, Any]:
    ours = _child("measure", "ours", protocol, iou_type, str(folder))
    peer = _child("measure", "peer", protocol, iou_type, str(folder))
    time_limit, memory_limit = LIMITS.get((protocol, iou_type), COCO_LIMITS)
    row = {
        "suite": "eval",
        "name": f"{protocol} {iou_type}",
        "device": "cpu",
        "peer": "lvis-api" if protocol == "lvis" else "pycocotools",
        "ours_s": ours["cpu_s"],
        "peer_s": peer["cpu_s"],
        "ratio": ours["cpu_s"] / peer["cpu_s"],
        "ratio_limit": time_limit,
        "ours_process_s": ours["process_s"],
        "peer_process_s": peer["process_s"],
        "ours_wall_s": ours["wall_s"],
        "peer_wall_s": peer["wall_s"],
        "ours_peak_mb": ours["peak_mb"],
        "peer_peak_mb": peer["peak_mb"],
        "memory_ratio": ours["peak_mb"] / peer["peak_mb"],
        "memory_ratio_limit": memory_limit,
        "equal": ours["digest"] == peer["digest"],
        "ap": ours["ap"],
    }
    return row


def _child(*words: str) -> dict[str, Any]:
    """Run this file in a separate process and parse the last line it prints."""
    command = [sys.executable, __file__, "--child", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _make(protocol: str, folder: str, scale: str) -> dict[str, Any]:
    from eval_sets import write_set

    sizes = SETS[protocol] | {"images": max(1, round(SETS[protocol]["images"] * float(scale)))}
    write_set(Path(folder), **sizes)
    return {}


def _measure(who: str, protocol: str, iou_type: str, folder: str) -> dict[str, Any]:
    import hashlib

    import numpy as np

    prepare = {"ours": _prepare_ours, "peer": _prepare_lvis if protocol == "lvis" else _prepare_coco}[who]
    evaluate = prepare(protocol, iou_type, Path(folder))
    cpu, wall = _cpu_seconds(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        precision, recall = evaluate()
    cpu, wall = _cpu_seconds() - cpu, time.perf_counter() - wall
    peak = peak_megabytes()
    digest = hashlib.sha256()
    for array in (precision, recall):
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array, np.float64).tobytes())
    return {
        "cpu_s": cpu,
        "wall_s": wall,
        "process_s": _cpu_seconds(),
        "peak_mb": peak,
        "digest": digest.hexdigest(),
        "ap": float(precision[precision > -1].mean()) if (precision > -1).any() else -1.0,
    }


def _result_file(protocol: str, iou_type: str, folder: Path) -> Path:
    return folder / ("results.json" if protocol == "lvis" else f"results_{iou_type}.json")


def _prepare_ours(protocol: str, iou_type: str, folder: Path) -> Callable[[], Arrays]:
    from maskrcnn_benchmark.evaluation.detections import Detections
    from maskrcnn_benchmark.evaluation.protocols.coco import evaluate_coco
    from maskrcnn_benchmark.evaluation.protocols.lvis import evaluate_lvis
    from maskrcnn_benchmark.utils.files import read_json
    from maskrcnn_benchmark.utils.native import load_ops

    load_ops()

    def evaluate() -> Arrays:
        truth = read_json(folder / "truth.json", what="annotation file")
        detections = Detections.read(_result_file(protocol, iou_type, folder))
        result = {"lvis": evaluate_lvis, "coco": evaluate_coco}[protocol](truth, detections, iou_type)
        return result.precision, result.recall

    return evaluate


def _prepare_coco(protocol: str, iou_type: str, folder: Path) -> Callable[[], Arrays]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def evaluate() -> Arrays:
        truth = COCO(str(folder / "truth.json"))
        detections = truth.loadRes(str(_result_file(protocol, iou_type, folder)))
        evaluator = COCOeval(truth, detections, iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        return evaluator.eval["precision"], evaluator.eval["recall"]

    return evaluate


def _prepare_lvis(protocol: str, iou_type: str, folder: Path) -> Callable[[], Arrays]:
    """lvis-api 0.5.3 needs numpy's removed np.float, and imports a cv2 that evaluation never uses."""
    import numpy as np

    np.float = float  # type: ignore[attr-defined]
    sys.modules.setdefault("cv2", types.ModuleType("cv2"))
    from lvis import LVIS, LVISEval, LVISResults

    def evaluate() -> Arrays:
        truth = LVIS(str(folder / "truth.json"))
        detections = LVISResults(truth, str(_result_file(protocol, iou_type, folder)))
        evaluator = LVISEval(truth, detections, iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        return evaluator.eval["precision"], evaluator.eval["recall"]

    return evaluate


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_megabytes() -> float:
    """Peak resident memory of this program alone (ru_maxrss would count the parent's before exec)."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match.group(1)) / 1024 if match else 0.0


def format_rows(rows: list[dict[str, Any]]) -> str:
    """The rows as a text table."""
    lines = [
        f"{'case':<11} {'peer':<12} {'ours s':>8} {'peer s':>8} {'ratio':>7} {'limit':>6} "
        f"{'ours MB':>8} {'peer MB':>8} {'ratio':>6} {'limit':>6}  arrays"
    ]
    for row in rows:
        lines.append(
            f"{row['name']:<11} {row['peer']:<12} {row['ours_s']:8.2f} {row['peer_s']:8.2f} "
            f"{row['ratio']:7.3f} {row['ratio_limit']:6.2f} {row['ours_peak_mb']:8.0f} "
            f"{row['peer_peak_mb']:8.0f} {row['memory_ratio']:6.2f} {row['memory_ratio_limit']:6.2f}  "
            f"{'equal' if row['equal'] else 'DIFFERENT'}"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse the command line; exit status 1 when arrays differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the images (default 1.0)")
    parser.add_argument("--case", action="append", help="such as lvis-segm; may be repeated (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        command, *words = arguments.child
        print(json.dumps({"make": _make, "measure": _measure}[command](*words)))
        return 0
    known = {"-".join(case): case for case in CASES}
    wrong = [name for name in arguments.case or [] if name not in known]
    if wrong or arguments.scale <= 0:
        parser.error(f"--case must be one of {', '.join(known)} and --scale larger than 0")
    rows = run(
        scale=arguments.scale, cases=tuple(known[name] for name in dict.fromkeys(arguments.case or known))
    )
    print(format_rows(rows))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
