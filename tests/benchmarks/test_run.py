"""The benchmark command: its messages and one quick run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskrcnn_benchmark.utils.files import read_json


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python benchmarks/run.py ...` with the package of this checkout."""
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(root / "benchmarks" / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_unknown_suite_is_one_line(project_root: Path) -> None:
    done = run(project_root, "speed")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown suite 'speed'; there are: ops")
    assert len(done.stderr.splitlines()) == 1


def test_suite_that_is_not_there(project_root: Path, tmp_path: Path) -> None:
    """A copy of the command without any suite."""
    (tmp_path / "benchmarks").mkdir()
    source = (project_root / "benchmarks" / "run.py").read_text()
    (tmp_path / "benchmarks" / "run.py").write_text(source)
    path = os.pathsep.join([str(project_root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "benchmarks" / "run.py"), "ops"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 2
    assert "benchmarks/ops.py is missing" in done.stderr


def test_quick_run_of_the_operations(project_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    done = run(project_root, "ops", "--quick", "--json", str(tmp_path / "ops.json"))
    assert done.returncode == 0, done.stderr
    result = read_json(tmp_path / "ops.json")
    assert result["suite"] == "ops" and result["machine"]["device"].startswith("cpu")
    names = {row["op"] for row in result["rows"]}
    assert {"nms", "roi_align", "roi_align backward", "fpn_roi_align"} <= names
    assert {"deform_conv2d backward", "deform_psroi_pooling"} <= names
    assert {"roi_pool backward", "sigmoid_focal_loss", "sigmoid_focal_loss backward"} <= names
    for row in result["rows"]:
        assert row["ours_ms"] > 0 and row["bound_ms"] > 0
        if row["torchvision_ms"] is not None:
            assert row["ratio"] == pytest.approx(row["ours_ms"] / row["torchvision_ms"], rel=0.05, abs=0.01)
        assert row["op"] in done.stdout


def test_quick_run_of_the_data_suite(project_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    done = run(project_root, "data", "--quick", "--json", str(tmp_path / "data.json"))
    assert done.returncode == 0, done.stderr
    rows = read_json(tmp_path / "data.json")["rows"]
    assert [row["case"] for row in rows if "loader" in row["case"]] == [
        f"loader, {n} workers" for n in range(3)
    ]
    assert all(row["ours_ms"] > 0 and row["peer_ms"] > 0 for row in rows)


def test_lst_suite_says_what_it_needs(
    project_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MRB_SAMPLE_DATA", str(tmp_path))
    done = run(project_root, "lst", "--quick")
    assert done.returncode == 2 and "set MRB_SAMPLE_DATA" in done.stderr


@pytest.mark.sample
def test_quick_run_of_the_lst_suite(project_root: Path, sample_data: Path, tmp_path: Path) -> None:
    done = run(project_root, "lst", "--quick", "--json", str(tmp_path / "lst.json"))
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in read_json(tmp_path / "lst.json")["rows"]}
    assert rows["prepare"]["result"] == "1230 classes in 7 phases"
    assert len(rows["replay plans"]["result"].split()) == 7


@pytest.mark.slow
@pytest.mark.sample
def test_preparation_at_full_size(project_root: Path, sample_data: Path, tmp_path: Path) -> None:
    """Epoch lengths of LST (Hu et al. 2020), at most 4 GB, a store of step 1 below 60 MB."""
    done = run(project_root, "lst", "--json", str(tmp_path / "lst.json"))
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in read_json(tmp_path / "lst.json")["rows"]}
    assert rows["first opening"]["result"] == "57263 images, 693958 annotations"
    assert rows["replay plans"]["result"] == "epochs 41502 20623 12467 7643 3741 1597"
    assert max(row["peak_mb"] for row in rows.values()) < 4096
    assert float(rows["distillation store"]["result"].split()[0]) < 60


def test_quick_run_of_the_model_suite(project_root: Path, tmp_path: Path) -> None:
    """Both models do the same work, and the stages are complete and sum to the whole."""
    pytest.importorskip("torchvision")
    done = run(project_root, "model", "--quick", "--json", str(tmp_path / "model.json"))
    assert done.returncode == 0, done.stderr
    rows = {row["case"]: row for row in read_json(tmp_path / "model.json")["rows"]}
    assert rows["inference"]["work"] == "100 boxes 10 masks; 100 boxes 10 masks"
    assert rows["training step"]["work"] == "32 boxes 8 masks; 32 boxes 8 masks"
    for case, stages in (
        ("inference", ("backbone", "detections", "paste")),
        ("training step", ("backward",)),
    ):
        assert {f"{case}: {stage}" for stage in stages} <= set(rows)
        for side in ("ours_cpu_ms", "peer_cpu_ms"):
            parts = {name: row[side] for name, row in rows.items() if name.startswith(f"{case}: ")}
            assert parts[f"{case}: backbone"] > 0 and -0.05 * sum(parts.values()) < parts[f"{case}: rest"]
    for masks in ("from class weights", "per class"):
        row = rows[f"1231 classes, masks {masks}"]
        assert row["peer"] == "81 classes" and row["target"] == 1.15
        assert row["ratio"] == pytest.approx(row["ours_ms"] / row["peer_ms"], rel=0.05)
