"""Run all checks of a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.doctor.checkup import Checkup
from maskrcnn_benchmark.doctor.classes import check_classes
from maskrcnn_benchmark.doctor.data import check_data
from maskrcnn_benchmark.doctor.files import check_files
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, keys_in, note
from maskrcnn_benchmark.doctor.loading import check_loading
from maskrcnn_benchmark.doctor.memory import check_memory
from maskrcnn_benchmark.doctor.models import check_model
from maskrcnn_benchmark.doctor.pitfalls import check_pitfalls
from maskrcnn_benchmark.doctor.schedule import check_schedule
from maskrcnn_benchmark.doctor.settings import Setting, trace_settings
from maskrcnn_benchmark.doctor.storage import check_storage
from maskrcnn_benchmark.doctor.unused import check_unused
from maskrcnn_benchmark.doctor.weights import check_weights
from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.files import StrPath

Check = Callable[[Checkup], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "settings": check_unused,
    "data": check_data,
    "files": check_files,
    "classes": check_classes,
    "model": check_model,
    "weights": check_weights,
    "schedule": check_schedule,
    "batches": check_loading,
    "memory": check_memory,
    "output": check_storage,
    "traps": check_pitfalls,
}
"""Section of the report -> what fills it, in the order of the report."""


@dataclass
class Report:
    """Result of an examination: settings that are not at their defaults, and findings by section.

    `quick` tells that contents of files were not read.
    """

    config_file: str
    overrides: list[str]
    quick: bool = False
    settings: list[Setting] = field(default_factory=list)
    sections: dict[str, list[Finding]] = field(default_factory=dict)

    def of_level(self, level: str) -> list[Finding]:
        """Return the findings of a level, in the order of the report."""
        return [f for findings in self.sections.values() for f in findings if f.level == level]

    @property
    def exit_status(self) -> int:
        """1 with errors, else 0."""
        return 1 if self.of_level("error") else 0


def examine(
    path: StrPath,
    overrides: Sequence[str] = (),
    *,
    weights: str = "",
    quick: bool = False,
    processes: int = 1,
) -> Report:
    """Examine a config; never raises for what is wrong with it.

    Args:
        path, overrides: as for `load_config`.
        weights: weight file to check instead of MODEL.WEIGHT.
        quick: read neither annotations nor weights, and do not estimate memory.
        processes: of the planned run on this computer.
    """
    report = Report(str(path), list(overrides), quick)
    try:
        cfg = load_config(path, overrides)
        report.settings, notes = trace_settings(path, overrides)
    except UsageError as problem:
        advice = "correct this first: nothing else can be checked before the configuration loads"
        report.sections["settings"] = [error(str(problem), *keys_in(str(problem)), advice=advice)]
        return report
    checkup = Checkup(cfg, report.settings, notes, weights=weights, quick=quick, processes=processes)
    for section, check in CHECKS.items():
        report.sections[section] = run_check(check, checkup)
    return report


def run_check(check: Check, checkup: Checkup) -> list[Finding]:
    """Return the findings of a check; when it stops, the last one says why."""
    findings: list[Finding] = []
    try:
        for finding in check(checkup):
            findings.append(finding)
    except NotChecked as why:
        findings.append(note(f"not checked: {why}"))
    except UsageError as problem:
        findings.append(error(str(problem), *keys_in(str(problem)), advice="see the message"))
    except Exception as failure:  # a defect of one check must not hide what the others say
        what = " ".join(str(failure).split())
        findings.append(note(f"this check stopped by itself: {type(failure).__name__}: {what}"))
    return findings
