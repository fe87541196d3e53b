"""Our evaluation beside lvis-api, pycocotools and hotcoco: CPU and wall time, memory, equal arrays.

    python benchmarks/eval.py [--scale 1.0] [--rounds 5] [--only ours,hotcoco] [--json FILE]

Scale 1 is 2000 images with 1200 categories and 300 detections each for LVIS, 80 categories and 100 detections
for COCO. Each measurement runs in a separate process; it starts after the imports and ends with the finished
arrays, the reading of the files included. `process_s` includes the imports too, `added_mb` is the peak of the
resident memory above that after the imports. The sides take turns, `--rounds` times; medians count. hotcoco
(PyPI) takes part where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import re
import resource
import statistics
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
# Highest accepted ratios ours / peer: CPU, peak memory; beside hotcoco CPU, wall time, added memory.
LIMITS = {("lvis", "segm"): (0.05, 0.4), ("lvis", "bbox"): (0.05, 0.4)}
COCO_LIMITS = (0.15, 1.0)
HOTCOCO_LIMITS = {"cpu_s": 0.9, "wall_s": 0.9, "added_mb": 1.0}
SIDES = ("ours", "peer", "hotcoco")
ROUNDS = 5
Arrays = tuple[Any, Any]


def run(
    device: str = "cpu",
    *,
    scale: float = 1.0,
    cases: tuple[tuple[str, str], ...] = CASES,
    rounds: int = ROUNDS,
    sides: tuple[str, ...] = SIDES,
) -> list[dict]:
    """One row per protocol and IoU type; `device` is only reported, as evaluation runs on the CPU."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for protocol in dict.fromkeys(protocol for protocol, _ in cases):
            folder = Path(name) / protocol
            folder.mkdir()
            _child("make", protocol, str(folder), str(scale))
            for iou_type in (iou for other, iou in cases if other == protocol):
                rows.append(_compare(protocol, iou_type, folder, rounds, sides))
    return rows


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Rows for `benchmarks/run.py eval`: all cases at full size, or once at a twentieth of it."""
    return run(device.type, scale=0.05, rounds=1) if quick else run(device.type)


def _compare(
    protocol: str, iou_type: str, folder: Path, rounds: int, sides: tuple[str, ...]
) -> dict[str, Any]:
    """Medians of all sides; the slow lvis-api and pycocotools run once."""
    if importlib.util.find_spec("hotcoco") is None:
        sides = tuple(side for side in sides if side != "hotcoco")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for turn in range(rounds):
        for side in sides:
            if turn == 0 or side != "peer":
                runs[side].append(_child("measure", side, protocol, iou_type, str(folder)))
    ours, peer, hotcoco = (_median(runs[side]) for side in SIDES)
    time_limit, memory_limit = LIMITS.get((protocol, iou_type), COCO_LIMITS)
    row = {
        "suite": "eval",
        "name": f"{protocol} {iou_type}",
        "device": "cpu",
        "peer": "lvis-api" if protocol == "lvis" else "pycocotools",
        "ours_s": ours["cpu_s"],
        "peer_s": peer["cpu_s"],
        "ratio": _ratio(ours, peer, "cpu_s"),
        "ratio_limit": time_limit,
        "ours_process_s": ours["process_s"],
        "peer_process_s": peer["process_s"],
        "ours_wall_s": ours["wall_s"],
        "peer_wall_s": peer["wall_s"],
        "ours_peak_mb": ours["peak_mb"],
        "peer_peak_mb": peer["peak_mb"],
        "memory_ratio": _ratio(ours, peer, "peak_mb"),
        "memory_ratio_limit": memory_limit,
        "equal": "peer" not in sides or ours["digest"] == peer["digest"],
        "ours_added_mb": ours["added_mb"],
        "hotcoco_s": hotcoco["cpu_s"],
        "hotcoco_wall_s": hotcoco["wall_s"],
        "hotcoco_added_mb": hotcoco["added_mb"],
        "ap": ours["ap"],
    }
    for key, limit in HOTCOCO_LIMITS.items():
        row |= {f"hotcoco_{key}_ratio": _ratio(ours, hotcoco, key), f"hotcoco_{key}_limit": limit}
    return row


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of several runs, whose arrays must be equal; None for a side that did not run."""
    if not runs:
        return dict.fromkeys(("cpu_s", "wall_s", "process_s", "peak_mb", "added_mb", "digest", "ap"))
    if len({one["digest"] for one in runs}) > 1:
        raise RuntimeError("two runs of one side gave different arrays")
    numbers = {k: statistics.median(one[k] for one in runs) for k, v in runs[0].items() if k != "digest"}
    return numbers | {"digest": runs[0]["digest"]}


def _ratio(ours: dict[str, Any], other: dict[str, Any], key: str) -> float | None:
    return None if other[key] is None or ours[key] is None else ours[key] / other[key]


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

    peer = _prepare_lvis if protocol == "lvis" else _prepare_coco
    prepare = {"ours": _prepare_ours, "peer": peer, "hotcoco": _prepare_hotcoco}[who]
    evaluate = prepare(protocol, iou_type, Path(folder))
    peak_before = peak_megabytes()
    forget_peak()
    before = resident_megabytes()
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
        "peak_mb": max(peak, peak_before),
        "added_mb": peak - before,
        "digest": digest.hexdigest(),
        "ap": float(precision[precision > -1].mean()) if (precision > -1).any() else -1.0,
    }


def _result_file(protocol: str, iou_type: str, folder: Path) -> Path:
    return folder / ("results.json" if protocol == "lvis" else f"results_{iou_type}.json")


def _prepare_ours(protocol: str, iou_type: str, folder: Path) -> Callable[[], Arrays]:
    from maskrcnn_benchmark.data.datasets.annotations import read_truth
    from maskrcnn_benchmark.evaluation.detections import Detections
    from maskrcnn_benchmark.evaluation.protocols.coco import evaluate_coco
    from maskrcnn_benchmark.evaluation.protocols.lvis import evaluate_lvis
    from maskrcnn_benchmark.utils.native import load_ops

    load_ops()

    def evaluate() -> Arrays:
        truth = read_truth(folder / "truth.json")
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


def _prepare_hotcoco(protocol: str, iou_type: str, folder: Path) -> Callable[[], Arrays]:
    import hotcoco

    def evaluate() -> Arrays:
        truth = hotcoco.COCO(str(folder / "truth.json"))
        results = str(_result_file(protocol, iou_type, folder))
        if protocol == "lvis":
            evaluator = hotcoco.LVISeval(truth, hotcoco.LVISResults(truth, results), iou_type)
        else:
            evaluator = hotcoco.COCOeval(truth, truth.load_res(results), iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        return evaluator.eval["precision"], evaluator.eval["recall"]

    return evaluate


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_megabytes() -> float:
    """Peak resident memory of this program alone (ru_maxrss would count the parent's before exec)."""
    return _status_megabytes("VmHWM")


def resident_megabytes() -> float:
    """Resident memory of this program."""
    return _status_megabytes("VmRSS")


def forget_peak() -> None:
    """Start a new peak of the resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_megabytes(key: str) -> float:
    match = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match.group(1)) / 1024 if match else 0.0


def format_rows(rows: list[dict[str, Any]]) -> str:
    """The rows as two text tables: beside the reference programs, and beside hotcoco."""
    lines = [
        f"{'case':<11} {'peer':<12} {'ours s':>8} {'peer s':>8} {'ratio':>7} {'limit':>6} "
        f"{'ours MB':>8} {'peer MB':>8} {'ratio':>6} {'limit':>6}  arrays"
    ]
    for row in rows:
        if row["peer_s"] is not None:
            lines.append(
                f"{row['name']:<11} {row['peer']:<12} {row['ours_s']:8.2f} {row['peer_s']:8.2f} "
                f"{row['ratio']:7.3f} {row['ratio_limit']:6.2f} {row['ours_peak_mb']:8.0f} "
                f"{row['peer_peak_mb']:8.0f} {row['memory_ratio']:6.2f} {row['memory_ratio_limit']:6.2f}  "
                f"{'equal' if row['equal'] else 'DIFFERENT'}"
            )
    lines.append(f"{'case':<11} ours / hotcoco: {'CPU s':>20} {'wall s':>20} {'added MB':>20}")
    for row in rows:
        if row["hotcoco_s"] is not None:
            cells = [
                f"{row['ours_s']:6.2f} {row['hotcoco_s']:6.2f} {row['hotcoco_cpu_s_ratio']:6.2f}",
                f"{row['ours_wall_s']:6.2f} {row['hotcoco_wall_s']:6.2f} {row['hotcoco_wall_s_ratio']:6.2f}",
                f"{row['ours_added_mb']:6.0f} {row['hotcoco_added_mb']:6.0f} "
                f"{row['hotcoco_added_mb_ratio']:6.2f}",
            ]
            lines.append(f"{row['name']:<11}                 {' '.join(cells)}")
    return "\n".join(lines)


def main() -> int:
    """Parse the command line; exit status 1 when arrays differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the images (default 1.0)")
    parser.add_argument("--case", action="append", help="such as lvis-segm; may be repeated (default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"alternating runs (default {ROUNDS})")
    parser.add_argument("--only", default=",".join(SIDES), help="sides to run (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        command, *words = arguments.child
        print(json.dumps({"make": _make, "measure": _measure}[command](*words)))
        return 0
    known = {"-".join(case): case for case in CASES}
    wrong = [name for name in arguments.case or [] if name not in known]
    sides = tuple(side for side in SIDES if side in arguments.only.split(","))
    if wrong or arguments.scale <= 0 or arguments.rounds < 1 or "ours" not in sides:
        parser.error(
            f"--case must be one of {', '.join(known)}, --scale and --rounds larger than 0, and --only some "
            f"of {','.join(SIDES)} with ours"
        )
    rows = run(
        scale=arguments.scale,
        cases=tuple(known[name] for name in dict.fromkeys(arguments.case or known)),
        rounds=arguments.rounds,
        sides=sides,
    )
    print(format_rows(rows))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
