"""Variants with several seeds: shared bases, order, resume, failures, the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.load import clone_with, load_config, save_config
from maskrcnn_benchmark.incremental.comparison import ablation_table
from maskrcnn_benchmark.incremental.comparison.ablation import (
    MARKER,
    AblationRun,
    plan_runs,
    read_ablation,
    run_ablation,
)
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.utils.errors import ConfigError, DataError, UsageError

VARIANTS = """
CONFIG: base.yaml
SEEDS: [0, 1]
OPTS:
  [LST.STEP_SIZE, 12, LST.SOLVER_BASE.MAX_ITER, 2, LST.SOLVER_STEP.MAX_ITER, 2,
   MODEL.ROI_HEADS.DETECTIONS_PER_IMG, 5]
VARIANTS:
  full: []
  no replay: [LST.REPLAY.ENABLED, False]
  class masks: [MODEL.ROI_MASK_HEAD.USE_BBOX2MASK, False, MODEL.ROI_MASK_HEAD.USE_MLPMASK, False]
REFERENCES:
  joint: [LST.BASE_SIZE, 24, LST.STEP_SIZE, [], LST.REPORT_SIZES, [12, 12]]
"""


@pytest.fixture(scope="module")
def plan(
    make_tiny_cfg: Callable[[Path], CfgNode], tmp_path_factory: pytest.TempPathFactory
) -> list[AblationRun]:
    """The runs of the file above, nothing trained."""
    folder = tmp_path_factory.mktemp("ablation")
    save_config(make_tiny_cfg(folder / "unused"), folder / "base.yaml")
    (folder / "variants.yaml").write_text(VARIANTS)
    return plan_runs(read_ablation(folder / "variants.yaml"), folder / "out")


@pytest.fixture(scope="module")
def started(plan: list[AblationRun]) -> list[tuple[str, tuple[int, ...]]]:
    """Everything trained; which folders were started with which phases, in order."""
    calls: list[tuple[str, tuple[int, ...]]] = []

    def start(config: Path) -> None:
        cfg = load_config(config)
        calls.append((f"{config.parent.parent.name}/{config.parent.name}", cfg.LST.PHASES))
        run_lst(cfg)

    run_ablation(plan, start)
    return calls


def run_of(plan: list[AblationRun], variant: str, seed: int) -> AblationRun:
    """Run of one variant and seed."""
    return next(run for run in plan if (run.variant, run.seed) == (variant, seed))


def test_runs_with_the_same_base_share_it(plan: list[AblationRun]) -> None:
    assert len(plan) == 8 and plan[0].variant == "full"
    donors = {run.name: run.donor.name for run in plan if run.donor is not None}
    assert donors == {f"no replay, seed {s}": f"full, seed {s}" for s in (0, 1)}
    assert str(run_of(plan, "full", 1).folder) == run_of(plan, "no replay", 1).cfg.LST.BASE_RUN
    assert {run.cfg.SEED for run in plan} == {0, 1} == {run.cfg.LST.SEED for run in plan}


def test_bases_that_others_need_come_first(plan: list[AblationRun], started: list[tuple[str, Any]]) -> None:
    assert started[:2] == [("full/seed_0", (0,)), ("full/seed_1", (0,))]
    free = {folder for folder, _ in started[2:6]}
    assert free == {f"{name}/seed_{s}" for name in ("class_masks", "joint") for s in (0, 1)}
    assert len(started) == 10 and all(phases == () for _, phases in started[2:])
    for seed in (0, 1):
        full, other = (run_of(plan, name, seed).folder for name in ("full", "no replay"))
        assert (other / "phase_0" / "model_final.pth").read_bytes() == (
            full / "phase_0" / "model_final.pth"
        ).read_bytes()
        assert not list((other / "phase_0").glob("model_0*"))  # not trained there
        assert (other / "phase_0" / "report" / "metrics.json").is_file()
        assert str(other / "phase_0") == load_config(other / "phase_0" / "config.yml").OUTPUT_DIR
        assert json.loads((other / "phase_1" / "replay.json").read_text())["counts"] == [0] * 12


def test_class_specific_masks_grow(plan: list[AblationRun], started: list[Any]) -> None:
    """Without the weight transfer every class has a row of its own in the mask predictor."""
    folder = run_of(plan, "class masks", 0).folder
    before, grown, after = (
        read_checkpoint(folder / name)["model"]
        for name in ("phase_0/model_final.pth", "phase_1/init.pth", "phase_1/model_final.pth")
    )
    name = "roi_heads.mask.predictor.mask_fcn_logits.weight"
    assert len(before[name]) == 13 and len(grown[name]) == len(after[name]) == 25
    assert torch.equal(grown[name][:13], before[name]) and grown[name][13:].abs().min() > 0
    assert not any("bbox2mask" in key for key in after) and not torch.equal(grown[name], after[name])


def test_finished_runs_are_skipped(plan: list[AblationRun], started: list[Any]) -> None:
    def start(config: Path) -> None:
        raise AssertionError(config)

    run_ablation(plan, start)
    changed = [
        AblationRun(r.variant, r.seed, clone_with(r.cfg, ["SOLVER.BASE_LR", 0.1]), r.donor) for r in plan
    ]
    assert not any(run.done() for run in changed) and all(run.done() for run in plan)


def test_a_failing_run_stops_the_others(
    plan: list[AblationRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        AblationRun(r.variant, r.seed, clone_with(r.cfg, ["OUTPUT_DIR", str(tmp_path / r.name)]), None)
        for r in plan
    ]
    begun: list[Path] = []
    stopped: list[bool] = []

    def start(config: Path) -> None:
        begun.append(config)
        if len(begun) == 2:
            raise UsageError("the disk is full")

    with pytest.raises(UsageError, match="disk is full"):
        run_ablation(runs, start, stop=lambda: stopped.append(True))
    assert stopped == [True] and len(begun) <= 3
    assert (begun[0].parent / MARKER).is_file() and not (begun[1].parent / MARKER).is_file()


def test_table(plan: list[AblationRun], started: list[Any], tmp_path: Path) -> None:
    ablation = read_ablation(plan[0].folder.parents[2] / "variants.yaml")
    table = ablation_table.build_table(ablation, plan)
    assert set(table["tasks"]) == {"bbox", "segm"} and table["full"] == "full"
    rows = table["tasks"]["segm"]
    assert list(rows) == ["full", "no replay", "class masks", "joint"]
    for name, row in rows.items():
        assert row["seeds"] == [0, 1] and list(row["groups"]) == ["b0", "t0"]
        assert {len(course) for course in row["course"].values()} == {1 if name == "joint" else 2}
        for seed, value in zip((0, 1), row["AP"]["values"], strict=True):
            phases = json.loads((run_of(plan, name, seed).folder / "summary.json").read_text())["phases"]
            assert value == phases[-1]["tasks"]["segm"]["metrics"]["AP"]
    assert rows["joint"]["reference"] and rows["joint"]["forgetting"]["mean"] is None
    assert rows["full"]["minus_full"]["values"] == [0.0, 0.0]
    images = ablation_table.write_table(table, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {
        "ablation.json",
        "ablation.md",
        *(p.name for p in images),
    }
    assert all(Image.open(path).width >= 800 for path in images)
    half = ablation_table.build_table(ablation, plan[:1])
    assert half["tasks"]["segm"]["no replay"]["AP"] == {"mean": None, "std": None, "values": []}


def numbers(values: list[float]) -> dict[str, Any]:
    """A table with these AP of the full method and, 0.1 higher, of a variant and a reference."""
    spread = ablation_table._mean_and_std
    rows = {
        name: {
            "reference": name == "bound",
            "seeds": [0, 1],
            "AP": spread([v + plus for v in values]),
            "groups": {"b0": spread(values)},
            "forgetting": spread([None, None]),
            "minus_full": spread([plus, plus]),
            "course": {"seen": [0.1, 0.2], "b0": [0.3, 0.2]},
        }
        for name, plus in (("full", 0.0), ("less", -0.1), ("more", 0.1), ("bound", 0.2))
    }
    return {"seeds": [0, 1], "full": "full", "tasks": {"segm": rows}}


def test_markdown_and_page(tmp_path: Path) -> None:
    table = numbers([0.5, 0.52])
    text = ablation_table.to_markdown(table)
    assert "| full | 2 | 0.510 ± 0.014 | - | 0.510 ± 0.014 | - |" in text
    assert "| *bound* | 2 | 0.710 ± 0.014 | 0.200 ± 0.000 |" in text
    assert ablation_table.better_variants(table, "segm") == ["more"]
    assert "ablated variants above it: more (+0.100 ± 0.000)." in text
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n{ablation_table.BEGIN}\nold\n{ablation_table.END}\nrest\n")
    ablation_table.insert_into_page(page, text)
    ablation_table.insert_into_page(page, "new")
    assert page.read_text() == f"# Title\n{ablation_table.BEGIN}\nnew\n{ablation_table.END}\nrest\n"
    page.write_text("nothing\n")
    with pytest.raises(DataError, match="no place for the table"):
        ablation_table.insert_into_page(page, text)


def test_files_of_another_form(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    full = "CONFIG: x\nVARIANTS: {a: []}\n"
    texts = ["CONFIG: x.yaml\n", "VARIANTS: {a: []}\n", "CONFIG: x\nVARIANTS: {a: [K]}\n"]
    texts += ["CONFIG: 3\nVARIANTS: {a: []}\n", "CONFIG: x\nVARIANTS: [a]\n", f"{full}REFERENCES: 3\n"]
    texts += [f"{full}SEEDS: [x]\n", f"{full}SEEDS: 3\n", f"{full}OPTS: {{a: 1}}\n"]
    for text in texts:
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"a.yaml: expected CONFIG, SEEDS"):
            read_ablation(file)


def test_a_base_that_does_not_fit_is_refused(
    plan: list[AblationRun], started: list[Any], tmp_path: Path, tiny_cfg: CfgNode
) -> None:
    full = run_of(plan, "full", 0)
    new = clone_with(full.cfg, ["OUTPUT_DIR", str(tmp_path / "new"), "LST.BASE_RUN", str(full.folder)])
    with pytest.raises(ConfigError, match=r"cannot be reused .*SOLVER.BASE_LR was 0.005, now 0.1"):
        run_lst(clone_with(new, ["SOLVER.BASE_LR", 0.1]))
    with pytest.raises(ConfigError, match=r"classes changed"):
        run_lst(clone_with(new, ["OUTPUT_DIR", str(tmp_path / "b"), "LST.STEP_SIZE", 6]))
    with pytest.raises(ConfigError, match="is not the folder of another run"):
        run_lst(clone_with(new, ["LST.BASE_RUN", str(tmp_path / "gone")]))
    run_lst(clone_with(new, ["LST.PHASES", (0,)]))
    weights = "phase_0/model_final.pth"
    assert (tmp_path / "new" / weights).read_bytes() == (full.folder / weights).read_bytes()
    # once reused, the other run is not needed any more
    run_lst(clone_with(new, ["LST.PHASES", (0,), "LST.BASE_RUN", str(tmp_path / "gone")]))
