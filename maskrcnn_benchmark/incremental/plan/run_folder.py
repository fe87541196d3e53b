"""Names of the files and folders inside the folder of a run (docs/architecture.md draws the tree)."""

from __future__ import annotations

from pathlib import Path

from yacs.config import CfgNode

# Of the whole run.
PLAN_FILE, STATE_FILE, CONFIG_FILE = "classes.json", "state.json", "config.yml"
# Of one phase.
GROWN_WEIGHTS, FINAL_WEIGHTS, REPLAY_FILE = "init.pth", "model_final.pth", "replay.json"
STORE_FOLDER, REPORT_FOLDER, PREVIOUS_FOLDER = "distill", "report", "previous"


def run_folder(cfg: CfgNode) -> Path:
    """Folder of the whole run: LST.RUN_DIR, or OUTPUT_DIR where it is empty."""
    return Path(cfg.LST.RUN_DIR or cfg.OUTPUT_DIR)


def phase_folder(run_dir: Path, phase: int) -> Path:
    """Folder of one phase inside the run folder."""
    return run_dir / f"phase_{phase}"


def report_folder(run_dir: Path, phase: int) -> Path:
    """Folder of the evaluation report of one phase."""
    return phase_folder(run_dir, phase) / REPORT_FOLDER
