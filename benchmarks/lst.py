"""Preparation of an LST run at the size of LVIS v0.5: seconds and peak memory of every stage.

The annotations are made from the real counts of the classes (lvis_annotations.py), which are read from
$MRB_SAMPLE_DATA/lvis_v0.5_category_counts.json. Every stage runs in a separate process, as in a run that is
stopped and resumed; its peak memory counts the pages of mapped files, and its time starts after the imports.
The last stage makes the report of the last phase from a file of detections (eval_sets.py): 300 with masks in
each of 5000 images, all 1230 classes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from eval import peak_megabytes
from eval_sets import write_set
from lvis_annotations import write_annotations

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.lvis import LvisEvaluator
from maskrcnn_benchmark.incremental.distillation.store import (
    STORE_FILES,
    DistillHeader,
    DistillStore,
    ImageCosines,
    write_store,
)
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.pipeline.prepare import plan_replay, prepare_run
from maskrcnn_benchmark.incremental.plan.phases import read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import REPLAY_FILE
from maskrcnn_benchmark.incremental.reporting.phase_report import (
    format_phase_report,
    phase_confusion,
    report_groups,
    write_phase_report,
)
from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.files import read_json, sha256_file

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
COUNTS = "lvis_v0.5_category_counts.json"
STAGES = ("first opening", "second opening", "prepare", "replay plans", "distillation store", "report")
DETECTED = {"images": 5000, "per_image": 300}
SPLIT = (270, 160)
STEP_1_BOXES, STEP_1_IMAGES = 40762, 12852
LOOKUPS = 2000
CLASSES = 1230


def counts_file() -> str:
    """Path of the class counts; UsageError when $MRB_SAMPLE_DATA does not point to them."""
    path = Path(os.environ.get("MRB_SAMPLE_DATA", "")) / COUNTS
    if not path.is_file():
        raise UsageError(f"suite lst needs {COUNTS}: set MRB_SAMPLE_DATA to the folder with it")
    return str(path)


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """One row per stage; `quick` takes a fiftieth of the images and objects."""
    scale = 0.02 if quick else 1.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_annotations(counts_file(), folder / "train.json", scale)
        write_annotations(counts_file(), folder / "val.json", 0.02 * scale)
        images = round(DETECTED["images"] * scale)
        write_set(folder, images=images, per_image=DETECTED["per_image"], categories=CLASSES, federated=True)
        environment = os.environ | {"MRB_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        rows = []
        for stage in STAGES:
            command = [sys.executable, __file__, stage, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                raise UsageError(f"stage {stage} failed: {done.stderr.strip().splitlines()[-1]}")
            rows.append({"stage": stage} | json.loads(done.stdout.splitlines()[-1]))
    return rows


def _context(folder: Path) -> RunContext:
    """A run of the paper's split on the generated annotations."""
    keys: dict[str, Any] = {
        "OUTPUT_DIR": folder / "run",
        "LST.ANN_TRAIN": folder / "train.json",
        "LST.ANN_VAL": folder / "val.json",
        "MODEL.DEVICE": "cpu",
    }
    settings = [str(item) for pair in keys.items() for item in pair]
    cfg = load_config(str(ROOT / "configs/lst/lvis_v0.5_270_6x160.yaml"), settings)
    return RunContext(cfg, folder / "run", PhaseData(cfg), lambda path: sha256_file(path))


def _open(folder: Path) -> str:
    annotations = AnnotationFile.load(folder / "train.json", index_from=0)
    return f"{len(annotations.images)} images, {len(annotations.columns)} annotations"


def _prepare(folder: Path) -> str:
    prepare_run(_context(folder))
    plan = read_plan(folder / "run")
    return f"{len(plan.classes)} classes in {plan.num_phases} phases"


def _replay(folder: Path) -> str:
    run, plan = _context(folder), read_plan(folder / "run")
    lengths = []
    for phase in range(1, plan.num_phases):
        plan_replay(run, plan, phase)
        lengths.append(read_json(run.folder(phase) / REPLAY_FILE)["epoch_length"])
    return "epochs " + " ".join(map(str, lengths))


def _store(folder: Path) -> str:
    """Write a store of the size of step 1, open it and look rows up in random order."""
    rng = np.random.default_rng(0)
    sizes = np.diff(np.linspace(0, STEP_1_BOXES, STEP_1_IMAGES + 1).round().astype(int))
    header = DistillHeader(1, SPLIT[0], "", "", (800, 1333), (0, 1), "float16")
    rows = [
        ImageCosines(i, flip, np.arange(n), rng.uniform(-1, 1, (n, SPLIT[0] + 1)).astype(np.float16))
        for i, n in enumerate(sizes.tolist())
        for flip in (0, 1)
    ]
    write_store(folder / "store", header, rows)
    store = DistillStore(folder / "store")
    chosen = [(int(i), int(i) % 2) for i in rng.integers(0, len(store), LOOKUPS)]
    start = time.perf_counter()
    for image, flip in chosen:
        store.read(image, flip).cosines.astype(np.float32)
    micro = 1e6 * (time.perf_counter() - start) / LOOKUPS
    size = sum((folder / "store" / name).stat().st_size for name in STORE_FILES) / 1e6
    return f"{size:.1f} MB, {micro:.1f} us per look-up"


def _report(folder: Path) -> str:
    """Both tasks, groups, confusion, every file and table of the last phase's report."""
    plan = read_plan(folder / "run")
    last = plan.num_phases - 1
    truth, detections = read_json(folder / "truth.json"), Detections.read(folder / "results.json")
    labels = [0, *plan.seen_ids(last)]
    evaluator = LvisEvaluator(truth, labels, ("bbox", "segm"), groups=report_groups(plan, last))
    report = evaluator.evaluate_detections(detections)
    confusion = phase_confusion(truth, report, plan, last)
    target = folder / "run" / f"phase_{last}" / "report"
    write_phase_report(report, plan, last, target, confusion=confusion, details={})
    format_phase_report(report, plan, last)
    return f"{len(detections)} detections in {len(truth['images'])} images"


def _child(stage: str, folder: Path) -> None:
    """Run one stage and print its row."""
    calls = dict(zip(STAGES, (_open, _open, _prepare, _replay, _store, _report), strict=True))
    start = time.perf_counter()
    result = calls[stage](folder)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": round(seconds, 2), "peak_mb": round(peak_megabytes()), "result": result}))


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
