"""Runs of earlier versions stay readable: names, fingerprints and layouts here are literals of such a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.incremental.distillation.store import DistillStore
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.pipeline.run_stages import phase_stages, prepare_stage
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.split import plan_from_cfg
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan
from maskrcnn_benchmark.utils.files import sha256_file

# Settings of the tiny run (conftest.py) as its state.json holds them, by stage.
FINGERPRINTS = {
    "prepare": "ea5fc8f96b104825908fad635629791fb32c21aeecb6042e88d876a08c7fba3c",
    "phase_0/train": "48e67052d3153775d888e6b6b26fbb52aed3c291a338a9345f95dcd94efe1ba2",
    "phase_0/report": "1b6e98c73ce7302505c6a20ffcf7468c0be4384608ebe3fecc6838bfcd7445b5",
    "phase_1/dump": "0809c8c9a5199c2289c69a5c5684bdc33fa24c04698f219b31e0a35dd442d43c",
    "phase_1/grow": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "phase_1/replay": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "phase_1/train": "ac3d21372e1995f0f9d3f466d1266fb052c731b0b73b27b65df2b255215ba00b",
    "phase_1/report": "4de149b41aaaec6a01232cf14d56c48c95bd4d83b2ed7e379c0d67eb5f514597",
}
INPUTS = {
    "prepare": ["LST.ANN_TRAIN"],
    "phase_0/train": ["classes", "LST.ANN_TRAIN"],
    "phase_0/report": ["classes", "model", "LST.ANN_VAL"],
    "phase_1/dump": ["classes", "teacher", "LST.ANN_TRAIN"],
    "phase_1/grow": ["classes", "teacher"],
    "phase_1/replay": ["classes", "LST.ANN_TRAIN"],
    "phase_1/train": [
        "classes", "LST.ANN_TRAIN", "distill/logits.npy", "distill/index.npz", "distill/header.json",
        "init.pth", "replay.json",
    ],
    "phase_1/report": ["classes", "model", "LST.ANN_VAL"],
}  # fmt: skip
REPORT = ["metrics.json", "per_class.csv", "per_phase.json", "confusion.json", "lvis_dt.json"]
OUTPUTS = {
    "prepare": ["classes.json"],
    "phase_0/train": ["phase_0/model_final.pth"],
    "phase_0/report": [f"phase_0/report/{name}" for name in REPORT],
    "phase_1/dump": [f"phase_1/distill/{name}" for name in ("logits.npy", "index.npz", "header.json")],
    "phase_1/grow": ["phase_1/init.pth"],
    "phase_1/replay": ["phase_1/replay.json"],
    "phase_1/train": ["phase_1/model_final.pth"],
    "phase_1/report": [f"phase_1/report/{name}" for name in REPORT],
}


def test_stages_keep_their_names_files_and_fingerprints(tiny_cfg: CfgNode) -> None:
    run_dir = Path(tiny_cfg.OUTPUT_DIR)
    run = RunContext(tiny_cfg, run_dir, PhaseData(tiny_cfg), sha256_file)
    plan = plan_from_cfg(tiny_cfg, run.data.train.outline)
    stages = [prepare_stage(run), *phase_stages(run, plan, 0), *phase_stages(run, plan, 1)]
    assert {stage.key: stage.fingerprint for stage in stages} == FINGERPRINTS
    assert {stage.key: list(stage.inputs) for stage in stages} == INPUTS
    outputs = {stage.key: [str(path.relative_to(run_dir)) for path in stage.outputs] for stage in stages}
    assert outputs == OUTPUTS


def write_state(run: Path, hashes: dict[str, Path], finished: dict[str, bool]) -> None:
    """A state.json with the records of an earlier run; `hashes`: files by the name of the input."""
    records = {
        key: {
            "stage": key,
            "inputs": {name: sha256_file(hashes[name]) for name in INPUTS[key]},
            "config": FINGERPRINTS[key],
            "finished": "2026-11-29T11:29:48+00:00" if done else None,
        }
        for key, done in finished.items()
    }
    (run / "state.json").write_text(json.dumps({"version": 1, "stages": records, "files": {}}, indent=1))


def test_an_earlier_run_resumes(tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    """The base phase is finished, then it is the one that was interrupted at iteration 2."""
    cfg, run = clone_with(tiny_cfg, ["LST.PHASES", (0,)]), Path(tiny_cfg.OUTPUT_DIR)
    run_lst(cfg)
    final = run / "phase_0" / "model_final.pth"
    expected = read_checkpoint(final)["model"]
    files = {
        "LST.ANN_TRAIN": Path(cfg.LST.ANN_TRAIN),
        "LST.ANN_VAL": Path(cfg.LST.ANN_VAL),
        "classes": run / "classes.json",
        "model": final,
    }
    write_state(run, files, {"prepare": True, "phase_0/train": True, "phase_0/report": True})
    with caplog.at_level(logging.INFO):
        run_lst(cfg)
    assert "nothing to do" in caplog.text
    final.unlink()
    (run / "phase_0" / "last_checkpoint").write_text("model_0000002.pth\n")
    write_state(run, files | {"model": run / "classes.json"}, {"prepare": True, "phase_0/train": False})
    with caplog.at_level(logging.INFO):
        run_lst(cfg)
    assert f"resuming {run / 'phase_0'} at iteration 2" in caplog.text
    actual = read_checkpoint(final)["model"]
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def test_a_store_of_an_earlier_run_is_read(tmp_path: Path) -> None:
    header = {
        "phase": 1,
        "num_old": 2,
        "classes_hash": "0b9c",
        "checkpoint": "ae7c",
        "input_size": [64, 64],
        "flips": [0, 1],
        "dtype": "float32",
    }
    (tmp_path / "header.json").write_text(json.dumps(header))
    ids = {"image_ids": [3, 8], "offsets": [0, 1, 3], "annotation_ids": [31, 82, 81]}
    np.savez(tmp_path / "index.npz", **{name: np.array(values) for name, values in ids.items()})
    np.save(tmp_path / "logits.npy", np.arange(18, dtype=np.float32).reshape(2, 3, 3))
    stored = DistillStore(tmp_path).read(8, 1)
    assert stored.annotation_ids.tolist() == [82, 81]
    assert stored.cosines.tolist() == [[12.0, 13.0, 14.0], [15.0, 16.0, 17.0]]


def test_plans_of_an_earlier_run_are_read() -> None:
    record: dict[str, Any] = {
        "category_id": 16,
        "name": "plain_disc",
        "frequency": "f",
        "instance_count": 30,
        "image_count": 24,
        "train_instances": 30,
        "train_images": 24,
        "label": 1,
        "group": "b0",
    }
    classes = {"sizes": [1], "classes": [record]}
    assert PhasePlan.from_json(classes).to_json() == classes
    replay: dict[str, Any] = {
        "phase": 1,
        "image_ids": [4, 9],
        "instances": [3, 1],
        "images": [2, 1],
        "mean_new": 1.0,
        "raw_counts": [1.0],
        "counts": [1],
        "image_lists": [[0, 1]],
        "new_pairs": [[1, 2]],
        "epoch_length": 2,
    }
    assert json.loads(json.dumps(ReplayPlan.from_json(replay).to_json())) == replay
