"""AP of a reference model, usually trained jointly on all classes, for intransigence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import PLAN_FILE, report_folder
from maskrcnn_benchmark.incremental.reporting.phase_report import METRICS_FILE, category_ap, read_tasks
from maskrcnn_benchmark.utils.errors import ConfigError


@dataclass(frozen=True)
class Reference:
    """AP by task ("bbox", "segm") and category id of the last reported phase of a run; None: undefined."""

    folder: Path
    ap: Mapping[str, Mapping[int, float | None]]

    def group_ap(self, task: str, category_ids: Iterable[int]) -> float | None:
        """Mean AP over the defined categories; None when there is none."""
        values = self.ap.get(task, {})
        known = [ap for category in category_ids if (ap := values.get(category)) is not None]
        return sum(known) / len(known) if known else None


def read_reference(folder: str | Path, plan: PhasePlan, key: str = "LST.REFERENCE_RUN") -> Reference | None:
    """Read the reference from a run folder; None for "".

    Args:
        plan: classes of the run that is compared; phases and order may differ. key: for messages.

    Raises:
        ConfigError: the folder has no report on all classes of `plan`, or has other classes.
    """
    if not folder:
        return None
    folder = Path(folder)
    fix = f"give a finished run of the same classes, for example joint training, or {key} ''"
    if not (folder / PLAN_FILE).is_file():
        raise ConfigError(f"{key}: {folder} is no folder of an LST run (it has no {PLAN_FILE}); {fix}")
    reference_plan = read_plan(folder)
    last = reference_plan.num_phases - 1
    ours, known = set(plan.seen_ids(plan.num_phases - 1)), set(reference_plan.seen_ids(last))
    if ours != known:
        raise ConfigError(
            f"{key}: {folder} has {len(known)} classes, this run {len(ours)}, {len(ours & known)} of them in "
            f"both; {fix}"
        )
    path = report_folder(folder, last) / METRICS_FILE
    if not path.is_file():
        raise ConfigError(f"{key}: {folder} has no report of its last phase yet ({path.name}); {fix}")
    return Reference(folder, category_ap(read_tasks(path)))
