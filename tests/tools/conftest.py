"""Demo data and the tiny configuration for whole runs of the tools."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 8 test images of 64 pixels with 6 categories."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    options = DemoOptions(train=24, val=8, size=64, seed=0, classes=6)
    generate_demo(folder, options, report=lambda text: None)
    return folder


@pytest.fixture(scope="session")
def tiny_config(project_root: Path, demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Mask R-CNN on the demo data."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        f"_BASE_: {project_root / 'tests' / 'engine' / 'tiny.yaml'}\n"
        "DATASETS:\n"
        f'  TRAIN: ["lvis:{demo_data}/train.json@{demo_data}/images/train"]\n'
        f'  TEST: ["lvis:{demo_data}/val.json@{demo_data}/images/val"]\n'
    )
    return path


@pytest.fixture
def tool(project_root: Path) -> Tool:
    """Runs `tools/<name>.py` as a user does; `world` > 1 starts it under torchrun or another launcher."""

    def run(
        name: str,
        *arguments: object,
        world: int = 1,
        launcher: Sequence[str] = ("torch.distributed.run", "--standalone"),
        check: bool = True,
    ) -> subprocess.CompletedProcess:
        paths = os.pathsep.join([str(project_root), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        start = ("-m", *launcher, f"--nproc_per_node={world}") if world > 1 else ()
        command = [
            sys.executable,
            *start,
            str(project_root / "tools" / f"{name}.py"),
            *map(str, arguments),
        ]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0 or not check, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run
