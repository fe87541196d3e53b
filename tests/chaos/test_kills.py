"""SIGKILL at many moments of a long-tail run: nothing is lost, and the end is that of an unbroken run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 20


@pytest.mark.dist
def test_killed_anywhere_it_ends_like_an_unbroken_run(tmp_path: Path, environment: dict[str, str]) -> None:
    script, record = Path(__file__).with_name("campaign.py"), tmp_path / "outcome.json"
    options = ["--fork", "--kills", str(KILLS), "--workers", "2", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, str(script), *options, "--seed", "0", "--json", str(record)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    outcome = json.loads(record.read_text())
    assert outcome["problems"] == []
    assert len(outcome["hits"]) >= KILLS
    assert {"prepare", "dump", "grow", "replay", "train", "report"} <= set(outcome["kinds"])
