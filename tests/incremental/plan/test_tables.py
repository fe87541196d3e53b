"""Tables of a plan."""

from __future__ import annotations

from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan
from maskrcnn_benchmark.incremental.plan.tables import (
    format_frequencies,
    format_phases,
    labels_by_frequency,
    phase_bands,
)

COUNTS = [(90, 40, "f"), (30, 20, "f"), (9, 9, "c"), (7, 5, "f"), (2, 1, "r")]


def plan(frequencies: bool = True) -> PhasePlan:
    """Five classes: base 2, steps 2 and 1."""
    classes = [
        ClassInfo(i, f"c{i}", f if frequencies else "", n, m, n, m) for i, (n, m, f) in enumerate(COUNTS)
    ]
    return PhasePlan(tuple(classes), (2, 2, 1))


def test_phases() -> None:
    rows = [line.split() for line in format_phases(plan()).splitlines()[2:]]
    assert rows[1] == ["1", "2", "4", "9", "8.0", "7", "16", "0/1/1"]
    assert rows[2] == ["2", "1", "5", "2", "2.0", "2", "2", "1/0/0"]


def test_frequencies() -> None:
    rows = [line.split() for line in format_frequencies(plan()).splitlines()[2:]]
    assert rows[0] == ["frequent", "3", "90", "30.0", "7", "127", "40", "5"]
    assert [row[0] for row in rows] == ["frequent", "common", "rare"]
    assert labels_by_frequency(plan()) == {"frequent": [1, 2, 4], "common": [3], "rare": [5]}


def test_files_without_frequencies() -> None:
    assert labels_by_frequency(plan(False)) == {"all": [1, 2, 3, 4, 5]}
    assert len(format_frequencies(plan(False)).splitlines()) == 3


def test_bands() -> None:
    assert phase_bands(plan()) == {"base": 2, "step 1": 2, "step 2": 1}
    assert phase_bands(plan(), 3) == {"base": 2, "step 1": 1}
    assert phase_bands(plan().with_report_sizes((4, 1))) == {"base": 4, "step 1": 1}
