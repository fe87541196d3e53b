"""Ablation: variants of a configuration with several seeds; runs with the same base phase share it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with, dump_config, load_config, save_config
from maskrcnn_benchmark.config.yaml_text import read_yaml
from maskrcnn_benchmark.incremental.pipeline.damage import require_intact
from maskrcnn_benchmark.incremental.pipeline.phase_config import derive_phase_cfg, stage_settings
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.plan.run_folder import STATE_FILE
from maskrcnn_benchmark.incremental.plan.split import plan_from_cfg
from maskrcnn_benchmark.incremental.reporting.summary import SUMMARY_FILE
from maskrcnn_benchmark.utils.errors import ConfigError, DataError
from maskrcnn_benchmark.utils.files import read_json, sha256_json, write_json
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.text import shortened

logger = logging.getLogger(__name__)
MARKER, RUN_CONFIG = "ablation.json", "run.yaml"
Start = Callable[[Path], None]
"""Trains by a configuration file; returns when it is done, raises when it fails."""


@dataclass(frozen=True)
class Ablation:
    """A configuration, KEY VALUE pairs of all runs, those of each variant, seeds.

    `last` are KEY VALUE pairs of all runs that override those of the variants. `variants` begins with the
    full method; variants without some part follow, then `references`, which are no ablations.
    """

    config: Path
    seeds: tuple[int, ...]
    opts: tuple[Any, ...]
    variants: dict[str, list[Any]]
    references: frozenset[str]
    last: tuple[Any, ...] = ()


@dataclass(frozen=True)
class AblationRun:
    """One variant with one seed: its configuration and the run whose base phase it reuses (or None)."""

    variant: str
    seed: int
    cfg: CfgNode
    donor: AblationRun | None

    @property
    def name(self) -> str:
        """Variant and seed, for messages."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Run folder."""
        return Path(self.cfg.OUTPUT_DIR)

    def done(self) -> bool:
        """Whether the run was finished with exactly these settings, and its summary is intact."""
        try:
            marker = read_json(self.folder / MARKER, "ablation marker")
            if not isinstance(marker, dict) or marker.get("settings") != self.settings_hash():
                return False
            require_intact(RunState(self.folder / STATE_FILE), [self.folder / SUMMARY_FILE])
        except DataError:
            return False
        return (self.folder / SUMMARY_FILE).is_file()

    def settings_hash(self) -> str:
        """SHA-256 of all settings."""
        return sha256_json(dump_config(self.cfg))


def read_ablation(path: str | Path) -> Ablation:
    """Read a yaml file with CONFIG (path relative to the file), SEEDS, OPTS, VARIANTS and REFERENCES.

    VARIANTS and REFERENCES map names to lists KEY, VALUE, ...; the first variant is the full method.

    Raises:
        ConfigError: for a file that is not of this form.
    """
    tree = read_yaml(Path(path))
    unknown = set(tree) - {"CONFIG", "SEEDS", "OPTS", "VARIANTS", "REFERENCES"}
    variants, references = tree.get("VARIANTS") or {}, tree.get("REFERENCES") or {}
    seeds, common = tree.get("SEEDS") or [0], tree.get("OPTS") or []
    form_fits = (
        not unknown
        and isinstance(tree.get("CONFIG"), str)
        and isinstance(seeds, list)
        and all(type(seed) is int for seed in seeds)
        and isinstance(variants, dict)
        and isinstance(references, dict)
        and variants
        and not set(variants) & set(references)
    )
    lists = [common, *variants.values(), *references.values()] if form_fits else []
    if not form_fits or not all(isinstance(pairs, list) and len(pairs) % 2 == 0 for pairs in lists):
        raise ConfigError(
            f"{path}: expected CONFIG, SEEDS, OPTS [KEY, VALUE, ...], VARIANTS and REFERENCES "
            "{name: [KEY, VALUE, ...]} with different names, and nothing else (found "
            f"{shortened(sorted(tree))})"
        )
    folders = {_folder_name(name) for name in variants | references}
    if len(folders) < len(variants) + len(references):
        raise ConfigError(
            f"{path}: names of variants must differ in letters or digits, not only in blanks and signs"
        )
    return Ablation(
        config=Path(path).parent / tree["CONFIG"],
        seeds=tuple(int(s) for s in seeds),
        opts=tuple(common),
        variants=variants | references,
        references=frozenset(references),
    )


def plan_runs(ablation: Ablation, out: Path) -> list[AblationRun]:
    """All runs, ordered so that each donor of a base phase comes before the runs that reuse it.

    Raises:
        ConfigError: for settings that do not fit together, before anything is trained.
    """
    donors: dict[str, AblationRun] = {}
    files: dict[str, dict[str, Any]] = {}
    runs = []
    base = load_config(ablation.config)
    for variant, pairs in ablation.variants.items():
        for seed in ablation.seeds:
            folder = out / _folder_name(variant) / f"seed_{seed}"
            seeded = ["SEED", seed, "LST.SEED", seed, "OUTPUT_DIR", str(folder)]
            cfg = clone_with(base, [*ablation.opts, *pairs, *ablation.last, *seeded])
            if cfg.LST.ANN_TRAIN not in files:
                files[cfg.LST.ANN_TRAIN] = PhaseData(cfg).train.outline
            key = _base_key(cfg, files[cfg.LST.ANN_TRAIN])
            donor = donors.get(key)
            if donor is not None:
                cfg = clone_with(cfg, ["LST.BASE_RUN", str(donor.folder)])
            runs.append(AblationRun(variant, seed, cfg, donor))
            donors.setdefault(key, runs[-1])
    return runs


def _folder_name(variant: str) -> str:
    """Name of the variant with one "_" for blanks and other signs."""
    return re.sub(r"[^\w.-]+", "_", variant)


def run_ablation(
    runs: Sequence[AblationRun], start: Start, jobs: int = 1, stop: Callable[[], None] = lambda: None
) -> None:
    """Execute the runs that are not done, `jobs` at a time; base phases that others wait for come first.

    `stop` is called to end the running ones when one fails or the user interrupts; they can be resumed.

    Raises:
        UsageError: the error of the first failing run.
    """
    waiting = [run for run in runs if not run.done()]
    needed = {run.donor.name: run.donor for run in waiting if run.donor is not None}
    bases = [donor for donor in needed.values() if not donor.done()]
    logger.info(
        "%d runs, %d of them done; %d base phases come first", len(runs), len(runs) - len(waiting), len(bases)
    )
    progress = Progress(len(waiting), "ablation", logger, period_seconds=0.0)
    with ThreadPoolExecutor(jobs) as pool:
        first = {run.name: pool.submit(_train_base, run, start) for run in bases}

        def base_of(run: AblationRun) -> Future[None] | None:
            return first.get((run.donor or run).name)

        # runs that wait for no base phase start first
        order = sorted(waiting, key=lambda run: base_of(run) is not None)
        futures = {pool.submit(_train_all, run, start, base_of(run)): run for run in order}
        try:
            for future in as_completed(futures):
                future.result()
                progress.update(extra=f"{futures[future].name} is done")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _train_base(run: AblationRun, start: Start) -> None:
    """Train the base phase of a run alone."""
    logger.info("base phase of %s", run.name)
    save_config(clone_with(run.cfg, ["LST.PHASES", (0,)]), run.folder / RUN_CONFIG)
    start(run.folder / RUN_CONFIG)


def _train_all(run: AblationRun, start: Start, before: Future[None] | None) -> None:
    """Train all phases of a run when `before` is done, and mark it as done."""
    if before is not None:
        before.result()
    logger.info("%s begins", run.name)
    save_config(run.cfg, run.folder / RUN_CONFIG)
    start(run.folder / RUN_CONFIG)
    write_json(run.folder / MARKER, {"settings": run.settings_hash()})


def _base_key(cfg: CfgNode, annotations: dict[str, Any]) -> str:
    """Hash that is equal for two runs with the same base phase."""
    plan = plan_from_cfg(cfg, annotations)
    base = derive_phase_cfg(cfg, plan, 0, Path("base"))
    data = [cfg.LST.ANN_TRAIN, cfg.LST.IMG_TRAIN]
    return sha256_json([stage_settings(base, "train"), plan.to_json(), data])
