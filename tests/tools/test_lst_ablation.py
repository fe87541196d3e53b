"""tools/lst_ablation.py as a user runs it: two runs of processes, table, page, bad input."""

from __future__ import annotations

import json
from pathlib import Path


def test_runs_and_table(tool, tiny_config: Path, demo_data: Path, tmp_path: Path) -> None:
    images = demo_data / "images"
    variants = tmp_path / "variants.yaml"
    variants.write_text(
        f"""
CONFIG: {tiny_config}
OPTS:
  [LST.ENABLED, True, LST.BASE_SIZE, 4, LST.STEP_SIZE, 2, MODEL.DEVICE, cpu, LST.FREEZE_BASE, 0,
   LST.ANN_TRAIN, {demo_data}/train.json, LST.ANN_VAL, {demo_data}/val.json,
   LST.IMG_TRAIN, {images}/train, LST.IMG_VAL, {images}/val, LST.DISTILL.ENABLED, False]
VARIANTS: {{full: []}}
REFERENCES: {{joint: [LST.BASE_SIZE, 6, LST.STEP_SIZE, [], LST.REPORT_SIZES, [4, 2]]}}
"""
    )
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("<!-- ablation table: begin -->\n<!-- ablation table: end -->\n")
    out = tmp_path / "out"
    limits = ["LST.SOLVER_BASE.MAX_ITER", "1", "LST.SOLVER_STEP.MAX_ITER", "1"]
    common = [variants, "--out", out, "--seeds", "3", "--docs", page]
    done = tool("lst_ablation", *common, "--jobs", "2", *limits)
    assert "ablation: 2/2" in done.stdout and "| *joint* | 1 |" in done.stdout
    assert (out / "full" / "seed_3" / "output.txt").is_file()
    assert set(json.loads((out / "ablation.json").read_text())["tasks"]["segm"]) == {"full", "joint"}
    text = page.read_text()
    assert "lst_ablation.py" in text and "--jobs 2" in text and "| full | 1 |" in text
    assert (page.parent / "images" / "ablation.png").is_file()
    empty = tool("lst_ablation", variants, "--out", tmp_path / "new", "--table")
    assert "| full | 0 | - |" in empty.stdout or "No run is finished yet." in empty.stdout
