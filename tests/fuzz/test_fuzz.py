"""A short campaign of damaged inputs, and the campaign itself: every kind of fault is noticed."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = 400


def campaign(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run campaign.py with the package of this checkout."""
    command = [sys.executable, str(root / "tests" / "fuzz" / "campaign.py"), *map(str, arguments)]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_few_damaged_inputs(project_root: Path, tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    done = campaign(
        project_root,
        "--kinds",
        "config,results,voc",
        "--cases",
        CASES,
        "--jobs",
        1,
        "--out",
        tmp_path / "out",
        "--json",
        counts,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    content = json.loads(counts.read_text())
    assert content["faults"] == [] and content["cases"] == pytest.approx(CASES, abs=10)
    for kind, outcomes in content["kinds"].items():
        assert outcomes.get("refused", 0) > 0, f"{kind}: no case is refused, so the mutations miss the reader"


def test_every_fault_is_noticed_and_kept(project_root: Path, tmp_path: Path) -> None:
    counts, out = tmp_path / "counts.json", tmp_path / "out"
    done = campaign(
        project_root, *("--kinds", "selftest", "--cases", 24, "--limit", 0.5, "--out", out, "--json", counts)
    )
    assert done.returncode == 1, done.stderr
    expected = [_outcome_of(index) for index in range(24)]
    content = json.loads(counts.read_text())
    assert {o: expected.count(o) for o in expected} == content["kinds"]["selftest"]
    assert len(set(expected)) == 8, "the seed must sample every outcome"
    for fault in content["faults"]:
        assert fault["outcome"] == expected[fault["index"]]
        kept = out / "faults" / f"selftest-{fault['index']}"
        assert (kept / "expected").read_text() == fault["outcome"]
        assert (kept / "FAULT.txt").read_text().startswith(fault["outcome"])


def _outcome_of(index: int) -> str:
    """What case `index` of seed 0 of kinds_selftest.py does: its entry in FAULTS."""
    outcomes = ["accepted", "refused", "untidy", "silent", "memory", "crash", "traceback", "hang", "hang"]
    return outcomes[random.Random(f"0/selftest/{index}").randrange(len(outcomes))]


def test_a_case_can_be_repeated(project_root: Path, tmp_path: Path) -> None:
    index = next(i for i in range(24) if _outcome_of(i) == "traceback")
    arguments: list[Any] = ["--only", f"selftest:{index}", "--out", tmp_path]
    done = campaign(project_root, *arguments)
    assert done.returncode == 1
    assert re.search(r"traceback ZeroDivisionError at .*kinds_selftest.py", done.stdout)


@pytest.mark.slow
def test_many_damaged_inputs(project_root: Path, tmp_path: Path) -> None:
    done = campaign(project_root, "--cases", 4000, "--seed", 1, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout
