"""A process killed under torchrun comes back by itself, and the results are those of an unbroken run."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo

pytestmark = [pytest.mark.dist, pytest.mark.slow]
SECONDS = 600.0


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the campaign that reads the progress of runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("processes")


@pytest.fixture
def launch(
    tmp_path: Path, project_root: Path, environment: dict[str, str]
) -> Callable[..., subprocess.Popen]:
    """Start the LST run on two ranks in a subfolder of the test's folder."""
    data = tmp_path / "data"
    generate_demo(data, DemoOptions(train=60, val=12, size=64), report=lambda _: None)
    images = data / "images"

    def start(name: str, restarts: int) -> subprocess.Popen:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [
            *(sys.executable, *torchrun, "--max-restarts", str(restarts)),
            *("--monitor-interval", "0.1", str(project_root / "tools" / "train_net.py")),
            *("--config-file", str(Path(__file__).with_name("lst.yaml")), "OUTPUT_DIR", str(tmp_path / name)),
            *("LST.ANN_TRAIN", str(data / "train.json"), "LST.IMG_TRAIN", str(images / "train")),
            *("LST.ANN_VAL", str(data / "val.json"), "LST.IMG_VAL", str(images / "val")),
        ]
        with open(tmp_path / f"{name}.txt", "wb") as console:
            return subprocess.Popen(command, env=environment, stdout=console, stderr=subprocess.STDOUT)

    return start


def _rank(pid: int, rank: int) -> bool:
    """Whether a process of torchrun has this rank."""
    try:
        return f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _is_at(runs: ModuleType, run: Path, stage: str) -> bool:
    """Whether a stage was begun; of a training stage, whether it has saved something."""
    phase, name = stage.split("/")
    return stage in runs.stages(run) and (name != "train" or phase in runs.saved_iterations(run))


def _comes_back(runs: ModuleType, agent: int, before: tuple[int, ...]) -> bool:
    """Whether torchrun has started new processes."""
    return any(_rank(pid, 0) and pid not in before for pid in runs.children(agent))


def _wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < end, "the run ended or does not get there"
        time.sleep(0.002)


def test_a_killed_worker_comes_back(
    launch: Callable[..., subprocess.Popen], runs: ModuleType, tmp_path: Path
) -> None:
    assert launch("whole", 0).wait(SECONDS) == 0, (tmp_path / "whole.txt").read_text()[-3000:]
    run, broken = tmp_path / "broken", launch("broken", 4)
    seen: list[int] = []
    places = [("phase_0/train", 1), ("phase_0/report", 0), ("phase_1/dump", 1), ("phase_1/train", 0)]
    for stage, rank in places:
        _wait_for(partial(_is_at, runs, run, stage), broken)
        victims = [pid for pid in runs.children(broken.pid) if _rank(pid, rank) and pid not in seen]
        assert len(victims) == 1
        seen += runs.children(broken.pid)
        os.kill(victims[0], signal.SIGKILL)
        _wait_for(partial(_comes_back, runs, broken.pid, tuple(seen)), broken)
    assert broken.wait(SECONDS) == 0, (tmp_path / "broken.txt").read_text()[-3000:]
    log = (run / "log.txt").read_text()
    assert log.count("on cpu, 2 process(es)") == 1 + len(places)
    assert importlib.import_module("compare").differences(tmp_path / "whole", run) == []
