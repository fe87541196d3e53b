"""A run of which any one file is damaged ends with the results of an undamaged one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--stages", "--cases", "150"]], ids=["finished", "after a stage"])
def test_any_damaged_file(tmp_path: Path, environment: dict[str, str], options: list[str]) -> None:
    script, record = Path(__file__).with_name("damage.py"), tmp_path / "outcome.json"
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path / "out"), "--json", str(record), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    outcome = json.loads(record.read_text())
    assert len(outcome["cases"]) == 7 and sum(outcome["cases"].values()) >= 150
