"""LST on a tiny data set: all stages once; stopped anywhere and resumed; errors."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.incremental.distillation import dump
from maskrcnn_benchmark.incremental.distillation.json_files import export_logits
from maskrcnn_benchmark.incremental.distillation.store import DistillStore
from maskrcnn_benchmark.incremental.pipeline import evaluate_phase, prepare, train_phase
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.incremental.pipeline.scheduler import test_phase as report_of_phase
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.replay.index_files import export_index_files
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan
from maskrcnn_benchmark.utils.errors import ConfigError, DataError, UsageError

STAGES = ["train", "report"], ["dump", "grow", "replay", "train", "report"]
KEYS = ["prepare", *(f"phase_{p}/{name}" for p in range(3) for name in STAGES[p > 0])]


def copy_of(finished: CfgNode, target: Path) -> CfgNode:
    """The finished run copied to another folder."""
    shutil.copytree(finished.OUTPUT_DIR, target)
    return clone_with(finished, ["OUTPUT_DIR", str(target)])


def weights(cfg: CfgNode, phase: int) -> dict[str, torch.Tensor]:
    """Final parameters of a phase."""
    return read_checkpoint(Path(cfg.OUTPUT_DIR) / f"phase_{phase}" / "model_final.pth")["model"]


def tables(cfg: CfgNode, phases: int = 3) -> list[Any]:
    """Metrics of the reports."""
    files = [Path(cfg.OUTPUT_DIR) / f"phase_{p}" / "report" / "metrics.json" for p in range(phases)]
    return [json.loads(path.read_text())["tasks"] for path in files]


def test_every_stage_leaves_its_files(finished: CfgNode) -> None:
    run = Path(finished.OUTPUT_DIR)
    state = json.loads((run / "state.json").read_text())["stages"]
    assert list(state) == KEYS and all(record["finished"] for record in state.values())
    plan = PhasePlan.from_json(json.loads((run / "classes.json").read_text()))
    assert plan.sizes == (12, 6, 6)
    counts = [c.instance_count for c in plan.classes]
    assert counts == sorted(counts, reverse=True)
    for phase in range(3):
        folder = run / f"phase_{phase}"
        assert phase == load_config(folder / "config.yml").LST.PHASE
        assert {"metrics.json", "per_class.csv", "per_phase.json", "lvis_dt.json"} <= {
            p.name for p in (folder / "report").iterdir()
        }
        assert weights(finished, phase)["roi_heads.box.predictor.cls_score.weight"].shape[
            0
        ] == 1 + plan.num_seen(phase)
    assert {"summary.json", "summary.csv", "summary.png"} <= {p.name for p in run.iterdir()}
    assert len(json.loads((run / "summary.json").read_text())["phases"]) == 3


def test_new_boxes_were_stored_and_the_backbone_stayed_frozen(finished: CfgNode) -> None:
    run = Path(finished.OUTPUT_DIR)
    store = DistillStore(run / "phase_2" / "distill")
    plan = PhasePlan.from_json(json.loads((run / "classes.json").read_text()))
    data = json.loads(Path(finished.LST.ANN_TRAIN).read_text())
    new = {a["id"] for a in data["annotations"] if a["category_id"] in plan.new_ids(2)}
    stored = {int(a) for image in store.image_ids for a in store.read(int(image), 0).annotation_ids}
    assert stored <= new and len(stored) >= 0.9 * len(new)
    assert store.header.num_old == 18 and store.header.phase == 2
    row = store.read(int(store.image_ids[0]), 1).cosines
    assert row.shape[1] == 19 and abs(row).max() <= 1.0 + 1e-5
    before, after = weights(finished, 1), weights(finished, 2)
    changed = {
        name
        for name in before
        if before[name].shape == after[name].shape and not torch.equal(before[name], after[name])
    }
    assert changed and not any(name.startswith("backbone.body") for name in changed)


def test_a_finished_run_does_nothing(finished: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    run = Path(finished.OUTPUT_DIR)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with caplog.at_level(logging.INFO):
        summary = run_lst(finished)
    assert "nothing to do" in caplog.text and "segm AP per phase" in caplog.text
    assert len(summary["phases"]) == 3
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Let the `call`-th call of a function raise KeyboardInterrupt instead."""
    original: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def replacement(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, replacement)


@pytest.mark.filterwarnings("ignore")
def test_stopped_anywhere_it_ends_like_an_unbroken_run(
    finished: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = clone_with(finished, ["OUTPUT_DIR", str(tmp_path / "run")])
    run_lst(clone_with(cfg, ["LST.PHASES", (0,)]))  # between stages
    kills = [
        (dump, "dump_cosines", 2),  # plain views are stored, flipped ones not
        (prepare, "grow_checkpoint", 1),
        (train_phase.DistillLookup, "__call__", 2),  # in the second iteration of phase 1
        (evaluate_phase, "write_phase_report", 1),
        (prepare, "build_replay_plan", 1),  # in phase 2, after its dump
    ]
    for owner, name, call in kills:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, owner, name, call)
            run_lst(cfg)
    run_lst(cfg)
    for phase in range(3):
        expected, actual = weights(finished, phase), weights(cfg, phase)
        assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert tables(cfg) == tables(finished)


def test_a_change_redoes_what_depends_on_it_or_is_refused(finished: CfgNode, tmp_path: Path) -> None:
    cfg = copy_of(finished, tmp_path / "run")
    with pytest.raises(UsageError, match=r"phase_0/train .*SOLVER.WEIGHT_DECAY was 0.0005, now 0.1.*phase 1"):
        run_lst(clone_with(cfg, ["SOLVER.WEIGHT_DECAY", 0.1]))
    last = clone_with(cfg, ["LST.PHASE_OVERRIDES", {"2": ["SOLVER.BASE_LR", 0.004]}])
    first_report = (tmp_path / "run" / "phase_1" / "report" / "metrics.json").stat().st_mtime_ns
    run_lst(last)
    run = tmp_path / "run"
    assert (run / "phase_2" / "previous" / "model_final.pth").exists()
    assert load_config(run / "phase_2" / "config.yml").SOLVER.BASE_LR == 0.004
    assert (run / "phase_1" / "report" / "metrics.json").stat().st_mtime_ns == first_report


def test_without_replay_and_distillation(finished: CfgNode, tmp_path: Path) -> None:
    cfg = copy_of(finished, tmp_path / "run")
    for phase in (1, 2):
        shutil.rmtree(tmp_path / "run" / f"phase_{phase}")
    off = ["LST.REPLAY.ENABLED", False, "LST.DISTILL.ENABLED", False, "LST.PHASES", (1,)]
    run_lst(clone_with(cfg, off))
    folder = tmp_path / "run" / "phase_1"
    assert not (folder / "distill").exists()
    plan = json.loads((folder / "replay.json").read_text())
    assert plan["counts"] == [0] * 12 and plan["epoch_length"] == len(plan["new_pairs"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert not any("loss_distill" in line for line in lines)


def test_reports_of_single_phases(
    finished: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = copy_of(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "phase_1" / "report")
    with caplog.at_level(logging.INFO):
        report = report_of_phase(cfg, 1)
    assert set(report.tasks) == {"bbox", "segm"} and "Phase 1 (model after step 1): 18 classes" in caplog.text
    assert tables(cfg) == tables(finished)
    with pytest.raises(ConfigError, match="no phase 7"):
        report_of_phase(cfg, 7)
    (tmp_path / "run" / "phase_2" / "model_final.pth").unlink()
    with pytest.raises(ConfigError, match="train it first"):
        report_of_phase(cfg, 2)


def test_bad_input_is_named(tiny_cfg: CfgNode) -> None:
    with pytest.raises(DataError, match=r"LST.ANN_TRAIN: annotation file 'gone.json' does not exist"):
        run_lst(clone_with(tiny_cfg, ["LST.ANN_TRAIN", "gone.json"]))
    with pytest.raises(ConfigError, match=r"for example LST.STEP_SIZE \[7, 5\]"):
        run_lst(clone_with(tiny_cfg, ["LST.STEP_SIZE", 7]))
    with pytest.raises(ConfigError, match="no phase 5"):
        run_lst(clone_with(tiny_cfg, ["LST.PHASES", (5,)]))
    with pytest.raises(ConfigError, match=r"phase 2 starts from .*which does not exist"):
        run_lst(clone_with(tiny_cfg, ["LST.PHASES", (2,)]))


def test_published_files_drive_a_step(finished: CfgNode, tmp_path: Path) -> None:
    cfg = copy_of(finished, tmp_path / "run")
    run = tmp_path / "run"
    plan = ReplayPlan.from_json(json.loads((run / "phase_1" / "replay.json").read_text()))
    store = DistillStore(Path(finished.OUTPUT_DIR) / "phase_1" / "distill")
    export_index_files(plan, tmp_path, world=1, samples_per_rank=20, shuffle_seed=0)
    export_logits(store, tmp_path / "logits_step1.json")
    for phase in (1, 2):
        shutil.rmtree(run / f"phase_{phase}")
    files = {
        "LST.REPLAY.FILE_IMAGES": "lvis_indices_qry_step{phase}_rand_balanced.json",
        "LST.REPLAY.FILE_CLASSES": "lvis_classes_qry_step{phase}_rand_balanced.json",
        "LST.DISTILL.FILE": "logits_step{phase}.json",
    }
    given = [item for key, name in files.items() for item in (key, str(tmp_path / name))]
    run_lst(clone_with(cfg, ["LST.PHASES", (1,), "LST.REPLAY.MODE", "file", *given]))
    imported = DistillStore(run / "phase_1" / "distill")
    assert imported.image_ids.tolist() == store.image_ids.tolist()
    for image in store.image_ids.tolist():
        for flip in (0, 1):
            one, two = store.read(image, flip), imported.read(image, flip)
            assert one.annotation_ids.tolist() == two.annotation_ids.tolist()
            assert (one.cosines == two.cosines).all()
    assert (run / "phase_1" / "report" / "metrics.json").exists()


def changed_file(source: str, target: Path, change: Callable[[list[dict[str, Any]]], Any]) -> str:
    """A copy of an annotation file whose list of categories is changed in place."""
    content = json.loads(Path(source).read_text())
    change(content["categories"])
    target.write_text(json.dumps(content))
    return str(target)


def detections(cfg: CfgNode, phases: int = 3) -> list[Any]:
    """Detections of the reports."""
    files = [Path(cfg.OUTPUT_DIR) / f"phase_{p}" / "report" / "lvis_dt.json" for p in range(phases)]
    return [json.loads(path.read_text()) for path in files]


def test_the_order_of_categories_plays_no_part(finished: CfgNode, tmp_path: Path) -> None:
    """Testing of each phase, and a whole run: replay, stored outputs and labels go by id."""
    val = changed_file(finished.LST.ANN_VAL, tmp_path / "val.json", list.reverse)
    cfg = copy_of(finished, tmp_path / "run")
    for phase in range(3):
        report_of_phase(clone_with(cfg, ["LST.ANN_VAL", val]), phase)
    assert tables(cfg) == tables(finished)
    assert detections(cfg) == detections(finished) and all(detections(cfg))
    train = changed_file(finished.LST.ANN_TRAIN, tmp_path / "train.json", list.reverse)
    files = ["LST.ANN_VAL", val, "LST.ANN_TRAIN", train, "SOLVER.TEST_PERIOD", 2, "LST.PHASES", (0, 1)]
    anew = clone_with(finished, ["OUTPUT_DIR", str(tmp_path / "anew"), *files])
    run_lst(anew)
    for phase in range(2):
        expected, actual = weights(finished, phase), weights(anew, phase)
        assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert tables(anew, 2) == tables(finished, 2) and detections(anew, 2) == detections(finished, 2)


def test_validation_with_other_classes(finished: CfgNode, tiny_cfg: CfgNode, tmp_path: Path) -> None:
    renamed = changed_file(
        tiny_cfg.LST.ANN_VAL, tmp_path / "renamed.json", lambda c: c[0].update(name="unicorn")
    )
    with pytest.raises(DataError, match=r"validation file has other classes.*'unicorn'"):
        run_lst(clone_with(tiny_cfg, ["LST.ANN_VAL", renamed]))
    assert not list((Path(tiny_cfg.OUTPUT_DIR) / "phase_0").glob("*.pth"))
    names = [c["name"] for c in json.loads(Path(finished.LST.ANN_VAL).read_text())["categories"]]

    def swap(categories: list[dict[str, Any]]) -> None:
        categories[0]["name"], categories[1]["name"] = names[1], names[0]

    swapped = changed_file(finished.LST.ANN_VAL, tmp_path / "swapped.json", swap)
    cfg = copy_of(finished, tmp_path / "copy")
    with pytest.raises(DataError, match="same ids and names"):
        report_of_phase(clone_with(cfg, ["LST.ANN_VAL", swapped]), 1)
    further = changed_file(
        finished.LST.ANN_VAL, tmp_path / "more.json", lambda c: c.insert(0, {"id": 900, "name": "new"})
    )
    report_of_phase(clone_with(cfg, ["LST.ANN_VAL", further]), 1)
    assert tables(cfg)[1] == tables(finished)[1]
