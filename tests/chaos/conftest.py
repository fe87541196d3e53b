"""Environment of the processes that the tests start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def environment(project_root: Path) -> dict[str, str]:
    """One numeric thread, this checkout's package, and nothing of a process group that pytest may be in."""
    paths = os.pathsep.join(filter(None, (str(project_root), os.environ.get("PYTHONPATH"))))
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
