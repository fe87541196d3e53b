"""The whole examination: it never crashes, ends in a verdict, and its JSON has one form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.doctor.checkup import Checkup
from maskrcnn_benchmark.doctor.finding import LEVELS, Finding, NotChecked, keys_in, listed, ok, size_text
from maskrcnn_benchmark.doctor.report import format_doctor_report, report_json, verdict
from maskrcnn_benchmark.doctor.run import CHECKS, Report, examine, run_check
from maskrcnn_benchmark.utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.yaml") if p.parent.name != "ablations"
)

FORM: dict[str, type | tuple[type, ...]] = {
    "config_file": str,
    "overrides": list,
    "settings": list,
    "findings": list,
    "counts": dict,
    "verdict": str,
    "exit_status": int,
}


def _check_form(data: dict[str, Any]) -> None:
    assert {key: type(value) for key, value in data.items()} == FORM
    for setting in data["settings"]:
        assert set(setting) == {"key", "value", "default", "source", "meaning"}
        assert all(isinstance(setting[k], str) and setting[k] for k in ("key", "source", "meaning"))
    for finding in data["findings"]:
        assert set(finding) == {"section", "level", "keys", "found", "advice"}
        assert finding["level"] in LEVELS and finding["section"] in CHECKS and finding["found"]
        assert finding["level"] not in ("warning", "error") or finding["advice"]
    assert data["counts"] == {level: sum(f["level"] == level for f in data["findings"]) for level in LEVELS}
    assert data["exit_status"] == (1 if data["counts"]["error"] else 0)


@pytest.mark.parametrize("name", FILES)
def test_every_file_goes_through(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data there are errors; each names what is missing and what to do. Memory: one file below."""
    monkeypatch.chdir(tmp_path)
    report = examine(ROOT / name, quick=True)
    data = report_json(report)
    _check_form(json.loads(json.dumps(data)))
    assert not [f for f in data["findings"] if "stopped by itself" in f["found"]]
    missing = [f for f in report.sections["data"] if f.level == "error"]
    cfg = load_config(ROOT / name)
    files = [cfg.LST.ANN_TRAIN] if cfg.LST.ENABLED else []
    assert missing and all(any(path in f.text for f in missing) for path in files)
    assert report.exit_status == 1 and format_doctor_report(report).splitlines()[-1] == verdict(report)


def test_demo_has_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generate_demo(tmp_path / "datasets" / "demo", DemoOptions(train=200, val=60), report=lambda _: None)
    report = examine(ROOT / "configs" / "lst" / "demo.yaml")
    assert report.of_level("error") == report.of_level("warning") == []
    assert not [f for f in report.of_level("note") if "stopped by itself" in f.text]
    assert set(report.sections) == set(CHECKS)
    assert [f for f in report.sections["memory"] if "activations" in f.text]
    assert verdict(report).startswith("no errors, no warnings")


def test_paper_file_without_data_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = examine(ROOT / "configs" / "lst" / "lvis_v0.5_270_6x160.yaml")
    (text,) = [f.text for f in report.sections["memory"] if "activations" in f.text]
    assert "8 images of 1344 x 800, a guess without annotations" in text


def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("SOLVER: {MAX_ITTER: 3}\n")
    report = examine(path)
    (finding,) = report.of_level("error")
    assert "unknown key SOLVER.MAX_ITTER" in finding.text and "SOLVER.MAX_ITER" in finding.text
    assert report.exit_status == 1 and verdict(report) == "1 error, 0 warnings: fix SOLVER.MAX_ITTER"
    _check_form(report_json(report))
    assert examine(tmp_path / "none.yaml").exit_status == 1


def test_checks_that_stop() -> None:
    def stops(problem: Exception) -> Iterator[Finding]:
        yield ok("first")
        raise problem

    checkup = Checkup(load_config(None))
    for problem, level, text in (
        (NotChecked("no data"), "note", "not checked: no data"),
        (ConfigError("MODEL.MASK_ON is odd"), "error", "MODEL.MASK_ON is odd"),
        (ZeroDivisionError("oh\nno"), "note", "this check stopped by itself: ZeroDivisionError: oh no"),
    ):
        first, last = run_check(lambda _, problem=problem: stops(problem), checkup)
        assert first.text == "first" and (last.level, last.text) == (level, text)


def test_verdict_names_what_to_fix() -> None:
    def report(*findings: Finding) -> Report:
        return Report("x.yaml", [], sections={"data": list(findings)})

    trouble = [Finding(level, (f"{level}.KEY",), "x", "y") for level in ("warning", "error", "error")]
    assert verdict(report(*trouble)) == "2 errors, 1 warning: fix error.KEY"
    assert verdict(report(trouble[0])) == "0 errors, 1 warning: look at warning.KEY"
    calm = report(Finding("note", (), "x"))
    assert verdict(calm) == "no errors, no warnings (1 note): ready to run"
    calm.quick = True
    assert verdict(calm) == "no errors, no warnings (1 note): no contents were read (--quick)"


def test_words() -> None:
    assert keys_in("A.B is 3, see LST.STEP_SIZE and LST.STEP_SIZE.") == ["LST.STEP_SIZE"]
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert [size_text(n) for n in (12, 5000, 3 << 20, 5 << 29)] == ["12 B", "5 kB", "3 MB", "2.5 GB"]


def test_tool(plain_config: Path, tmp_path: Path, project_root: Path) -> None:

    paths = os.pathsep.join([str(project_root), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, project_root / "tools" / "doctor.py", "--config-file", plain_config, "--quick"]
    command += ["--json", tmp_path / "report.json", "SOLVER.IMS_PER_BATCH", "5", "--processes", "2"]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 1 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "1 error, 0 warnings: fix SOLVER.IMS_PER_BATCH"
    row = next(line for line in lines if line.startswith("SOLVER.IMS_PER_BATCH"))
    assert row.split()[1:3] == ["5", "16"] and "command line" in row and "images per iteration" in row
    assert "           -> set SOLVER.IMS_PER_BATCH 4, or start another number of processes" in lines
    data = json.loads((tmp_path / "report.json").read_text())
    _check_form(data)
    assert data["verdict"] == lines[-1]
