"""tools/check_golden.py: any folder of the formats, one line per check, exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).with_name("golden")
TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_golden.py"


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), "--threads", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=TOOL.parents[1], check=False)


@pytest.fixture
def lst_part(tmp_path: Path) -> Path:
    """A folder with only the files of evaluation and splits."""
    for name in (
        "splits.json",
        "eval.json",
        "lvis_mini_train.json",
        "lvis_mini_val.json",
        "detections_val.json",
    ):
        shutil.copy(GOLDEN / "lst" / name, tmp_path)
    return tmp_path


def test_part_of_a_folder_passes(lst_part: Path) -> None:
    report = lst_part / "out" / "checks.json"
    done = _run(lst_part, "--json", report)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("splits.sorted_id_all ") and line.endswith("ok") for line in lines)
    assert lines[-1].startswith("-- ") and "FAIL" not in lines[-1]
    assert {check["status"] for check in json.loads(report.read_text())} == {"ok"}


def test_wrong_number_fails(lst_part: Path) -> None:
    path = lst_part / "eval.json"
    content = json.loads(path.read_text())
    content["full"]["bbox"]["metrics"]["AP75"] += 0.001
    path.write_text(json.dumps(content))
    done = _run(lst_part, "--failures")
    assert done.returncode == 1
    heading, failure, summary = done.stdout.splitlines()
    assert heading.startswith("== ") and summary.endswith(" 1 FAIL")
    assert failure.startswith("eval.full.bbox.AP75 ") and failure.endswith(" FAIL")


def test_damaged_and_missing_files_fail_without_ending_the_run(lst_part: Path) -> None:
    (lst_part / "replay.json").write_text("{ not json")
    (lst_part / "x_eval.json").write_text("[1, 2")
    (lst_part / "detections_val.json").unlink()
    done = _run(lst_part)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "splits.sorted_id_all" in done.stdout
    failed = [line for line in done.stdout.splitlines() if "FAIL:" in line]
    assert {line.split()[0] for line in failed} == {"replay", "x_eval", "eval"}


def test_unusable_folder_is_one_clear_line(tmp_path: Path) -> None:
    for folder, text in ((tmp_path / "none", "is not a folder"), (tmp_path, "no reference file")):
        done = _run(folder)
        assert done.returncode == 2
        assert text in done.stderr and len(done.stderr.splitlines()) == 1


def test_components_with_another_prefix_and_fewer_sections(tmp_path: Path) -> None:
    """Only what the files say decides: other noise, other sizes, missing sections."""
    from checks.fill import noise

    text = "inputs noise('other/a',(9,)) and noise('other/b',(9,))"
    difference = np.abs(noise("other/a", (9,)) - noise("other/b", (9,))).astype(np.float64)
    loss = np.where(difference < 0.5, difference**2, difference - 0.25).sum()
    sections = {
        "smooth_l1": text,
        "image_list": {
            "inputs": [[3, 5, 7], [3, 9, 2]],
            "batch_div4": [2, 3, 12, 8],
            "image_sizes_hw": [[5, 7], [9, 2]],
        },
        "resize_table": {
            "columns": ["max", "min", "h", "w", "out_h", "out_w"],
            "rows": [[100, 50, 30, 60, 50, 100]],
        },
        "brand_new": "not known to anybody",
    }
    content = {"noise_prefix": "other/", "sections": sections}
    (tmp_path / "components.json").write_text(json.dumps(content))
    np.savez(tmp_path / "components.npz", **{"smooth_l1.sum.beta0.5000": np.float32(loss)})
    done = _run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert any(
        line.startswith("brand_new") and "not supported yet" in line for line in done.stdout.splitlines()
    )
    np.savez(tmp_path / "components.npz", **{"smooth_l1.sum.beta0.5000": np.float32(loss * 1.001)})
    assert _run(tmp_path).returncode == 1
