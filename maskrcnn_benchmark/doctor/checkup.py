"""Context of all checks: the config, the data it names, and the trainings that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import DatasetSpec, resolve_dataset
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.doctor.finding import NotChecked
from maskrcnn_benchmark.doctor.machine import resident_bytes
from maskrcnn_benchmark.doctor.settings import Setting
from maskrcnn_benchmark.incremental.pipeline.phase_config import derive_phase_cfg
from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import run_folder
from maskrcnn_benchmark.incremental.plan.split import plan_from_cfg
from maskrcnn_benchmark.incremental.replay.plan import epoch_length
from maskrcnn_benchmark.utils.errors import UsageError

TRAIN, TEST = "train", "test"


def size_keys(cfg: CfgNode) -> tuple[str, ...]:
    """Return the keys that give the size of training images."""
    if any(cfg.INPUT.FIXED_SIZE_TRAIN):
        return ("INPUT.FIXED_SIZE_TRAIN",)
    short = "MIN_SIZE_RANGE_TRAIN" if max(cfg.INPUT.MIN_SIZE_RANGE_TRAIN) > 0 else "MIN_SIZE_TRAIN"
    return (f"INPUT.{short}", "INPUT.MAX_SIZE_TRAIN")


@dataclass(frozen=True)
class DataSource:
    """One data set of the run: its role ("train" or "test") and the keys that name its two parts."""

    role: str
    spec: DatasetSpec
    ann_key: str
    img_key: str


@dataclass(frozen=True)
class Job:
    """One training: the whole run, or one phase of an LST run (`phase` is -1 without phases).

    `epoch` is the number of samples of an epoch (a balanced one in a step), None where it is not known.
    """

    name: str
    cfg: CfgNode
    phase: int = -1
    epoch: int | None = None

    def solver_key(self, name: str) -> str:
        """Full key by which the user sets a SOLVER key of this training."""
        if self.phase < 0:
            return f"SOLVER.{name}"
        return f"LST.SOLVER_{'STEP' if self.phase else 'BASE'}.{name}"


@dataclass
class Checkup:
    """All that a check may read; annotation files are read once.

    Attributes:
        cfg: the checked configuration. settings: its keys that are not at their defaults.
        notes: lines on outdated keys in the files. weights: file to check instead of MODEL.WEIGHT.
        quick: read neither annotations nor weights. processes: of the planned run, on this computer.
        annotation_bytes: main memory that the annotations read so far hold.
    """

    cfg: CfgNode
    settings: list[Setting] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    weights: str = ""
    quick: bool = False
    processes: int = 1
    annotation_bytes: int = 0
    _datasets: list[DetectionDataset] = field(default_factory=list)
    _read: dict[str, AnnotationFile | UsageError] = field(default_factory=dict)

    @property
    def lst(self) -> bool:
        """Whether the run has phases."""
        return bool(self.cfg.LST.ENABLED)

    @property
    def run_dir(self) -> Path:
        """Folder that the run writes into."""
        return run_folder(self.cfg) if self.lst else Path(self.cfg.OUTPUT_DIR)

    @cached_property
    def sources(self) -> list[DataSource]:
        """The data sets that are known by name; `unknown_sources` holds the problems of the others."""
        lst = self.cfg.LST
        if self.lst:
            return [
                DataSource(
                    role, DatasetSpec(f"LST {role}", "lvis", ann, img), f"LST.ANN_{part}", f"LST.IMG_{part}"
                )
                for role, part, ann, img in (
                    (TRAIN, "TRAIN", lst.ANN_TRAIN, lst.IMG_TRAIN),
                    (TEST, "VAL", lst.ANN_VAL, lst.IMG_VAL),
                )
            ]
        sources = []
        for role, key in ((TRAIN, "DATASETS.TRAIN"), (TEST, "DATASETS.TEST")):
            for name in self.cfg.DATASETS[role.upper()]:
                try:
                    sources.append(DataSource(role, resolve_dataset(self.cfg, name), key, key))
                except UsageError as problem:
                    self.unknown_sources.append((key, str(problem)))
        return sources

    @cached_property
    def unknown_sources(self) -> list[tuple[str, str]]:
        """(key, problem) of data sets whose names are not known."""
        return []

    def read(self, source: DataSource) -> AnnotationFile:
        """The annotations of a data set; UsageError as the reader raises it, NotChecked with `quick`."""
        path = source.spec.ann_file
        if self.quick:
            raise NotChecked("annotation files are not read with --quick")
        if path not in self._read:
            before = resident_bytes()
            try:
                self._read[path] = load_annotations(source.spec)
                self.annotation_bytes += max(0, resident_bytes() - before)
            except UsageError as problem:
                self._read[path] = problem
        result = self._read[path]
        if isinstance(result, UsageError):
            raise result
        return result

    def annotations(self, role: str) -> list[tuple[DataSource, AnnotationFile]]:
        """Data sets of a role with their annotations; NotChecked when there is none or one cannot be read."""
        chosen = [source for source in self.sources if source.role == role]
        if not chosen:
            raise NotChecked(f"the run has no {'training' if role == TRAIN else 'test'} data")
        try:
            return [(source, self.read(source)) for source in chosen]
        except UsageError:
            raise NotChecked("an annotation file cannot be read (see data)") from None

    @cached_property
    def plan(self) -> PhasePlan:
        """Classes and phases of an LST run; NotChecked without annotations, UsageError where they misfit."""
        return plan_from_cfg(self.cfg, self.annotations(TRAIN)[0][1].outline)

    @property
    def jobs(self) -> list[Job]:
        """The trainings of the run; of an LST run whose classes are not known the base phase alone.

        NotChecked where the configuration of a phase cannot be derived (`job_problem` says why).
        """
        if self.job_problem is not None:
            raise NotChecked("the configurations of the phases cannot be derived (see model)")
        return self._jobs_or_problem[0]

    @property
    def job_problem(self) -> UsageError | None:
        """Why there are no `jobs`; None when there are."""
        return self._jobs_or_problem[1]

    @cached_property
    def _jobs_or_problem(self) -> tuple[list[Job], UsageError | None]:
        try:
            return self._make_jobs(), None
        except UsageError as problem:
            return [], problem

    def _make_jobs(self) -> list[Job]:
        if not self.lst:
            return [Job("training", self.cfg, epoch=self._images(self.cfg))]
        try:
            plan, known = self.plan, True
        except (NotChecked, UsageError):
            classes = tuple(ClassInfo(i, str(i), "", 0, 0, 0, 0) for i in range(self.cfg.LST.BASE_SIZE))
            plan, known = PhasePlan(classes, (len(classes),)), False
        chosen = [p for p in range(plan.num_phases) if p in (self.cfg.LST.PHASES or range(plan.num_phases))]
        return [self._phase_job(plan, phase, known) for phase in chosen or [0]]

    def _phase_job(self, plan: PhasePlan, phase: int, known: bool) -> Job:
        cfg = derive_phase_cfg(self.cfg, plan, phase, self.run_dir)
        replay = cfg.LST.REPLAY
        if phase:
            epoch: int | None = epoch_length(plan, phase, replay.MIN_PER_CLASS, replay.ENABLED)
        else:
            epoch = self._images(cfg, plan.seen_ids(0)) if known else None
        return Job(f"phase {phase}", cfg, phase, epoch)

    def _images(self, cfg: CfgNode, order: Sequence[int] | None = None) -> int | None:
        """Images of an ordinary epoch; None without readable annotations."""
        try:
            return sum(map(len, self.datasets(cfg, order)))
        except (NotChecked, UsageError):
            return None

    def datasets(self, cfg: CfgNode, order: Sequence[int] | None = None) -> list[DetectionDataset]:
        """The training sets of ordinary training, filtered for it; `order`: category ids by label."""
        if not self._datasets:
            self._datasets = [
                build_dataset(cfg, source.spec, train=True, category_order=order, annotations=annotations)
                for source, annotations in self.annotations(TRAIN)
            ]
        return self._datasets
