"""What every action of a run needs: configuration, folder, annotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.incremental.pipeline.phase_config import derive_phase_cfg
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import FINAL_WEIGHTS, phase_folder
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN


@dataclass(frozen=True)
class RunContext:
    """A run in progress.

    Attributes:
        cfg: the configuration the user wrote. run_dir: folder of the run. data: annotation files.
        file_hash: SHA-256 of a file (cached by the run state).
    """

    cfg: CfgNode
    run_dir: Path
    data: PhaseData
    file_hash: Callable[[Path], str]

    def folder(self, phase: int) -> Path:
        """Folder of a phase."""
        return phase_folder(self.run_dir, phase)

    def phase_cfg(self, plan: PhasePlan, phase: int) -> CfgNode:
        """Derived configuration of a phase."""
        return derive_phase_cfg(self.cfg, plan, phase, self.run_dir)

    def final_weights(self, phase: int) -> Path:
        """Checkpoint file that a phase ends with."""
        return self.folder(phase) / FINAL_WEIGHTS

    def load_final_model(self, plan: PhasePlan, phase: int) -> GeneralizedRCNN:
        """Build the model of a phase with its final weights."""
        cfg = self.phase_cfg(plan, phase)
        model = build_detection_model(cfg)
        load_weights(model, str(self.final_weights(phase)), conv_body=cfg.MODEL.BACKBONE.CONV_BODY)
        return model
