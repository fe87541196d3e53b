"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same examples in every run of continuous integration, new ones elsewhere; no test is timed.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """Small tensors gain nothing from many threads, and two test processes share the machine."""
    torch.set_num_threads(max(1, min(2, int(os.environ.get("OMP_NUM_THREADS", "2")))))


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """Folder with the sample data (environment variable MRB_SAMPLE_DATA); the test is skipped without it."""
    folder = os.environ.get("MRB_SAMPLE_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MRB_SAMPLE_DATA does not name the folder of the sample data")
    return Path(folder)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Folder of the project's checkout."""
    return Path(__file__).resolve().parents[1]
