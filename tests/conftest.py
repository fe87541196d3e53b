"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import settings

# The same examples in every run of continuous integration, new ones elsewhere; no test is timed.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# Test files whose fixtures train: those of one name run in one process, which trains once for all of them.
ONE_PROCESS = {
    "tests/incremental/comparison/test_ablation.py": "ablation",
    "tests/incremental/pipeline/test_scheduler.py": "finished LST run",
    "tests/incremental/released/test_released.py": "finished LST run",
    "tests/tools/test_tools.py": "trained model",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute tests one by one over the processes of pytest-xdist, those of ONE_PROCESS together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        """Gives a process all tests of one scope."""

        def _split_scope(self, nodeid: str) -> str:
            return ONE_PROCESS.get(nodeid.partition("::")[0], nodeid)

    return Scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """Small tensors gain nothing from many threads, and two test processes share the host."""
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


@pytest.fixture(scope="session")
def dataset_trees(project_root: Path) -> ModuleType:
    """The module `dataset_trees.py`, which writes data sets as Pascal VOC and Cityscapes lay them out."""
    spec = importlib.util.spec_from_file_location(
        "dataset_trees", project_root / "tests" / "dataset_trees.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_tool(project_root: Path) -> Callable[..., int | None]:
    """Function (name, *arguments) -> exit code: `main` of `tools/<name>.py` in this process.

    Its errors are raised.
    """

    def run(name: str, *arguments: object) -> int | None:
        spec = importlib.util.spec_from_file_location(name, project_root / "tools" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        log = logging.getLogger("maskrcnn_benchmark")
        before = list(log.handlers), log.propagate, log.level
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
            try:
                return module.main()
            finally:
                log.handlers[:], log.propagate = before[:2]
                log.setLevel(before[2])

    return run


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _member(function: Callable[..., Any], rank: int, world: int, folder: Path, args: tuple[Any, ...]) -> None:
    """One forked process of `run_ranks`: its result or its traceback goes to a file."""
    code = 1
    try:
        torch.set_num_threads(1)  # the thread pool did not survive the fork
        if world > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
            dist.barrier()  # nobody may leave while another one is still connecting
        torch.save(function(*args), folder / f"rank{rank}.pt")
        if world > 1:
            dist.destroy_process_group()
        code = 0
    except BaseException:
        (folder / f"rank{rank}.txt").write_text(traceback.format_exc())
    finally:
        sys.stdout.flush()
        os._exit(code)


@pytest.fixture(scope="session", autouse=True)
def _autograd_started() -> None:
    """A backward pass before all others: later ones, after a FakeTensorMode, would rule out forks."""
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(scope="session")
def _ddp_loaded() -> None:
    """What DistributedDataParallel imports at its first use (seconds), done once for all forked processes."""
    importlib.import_module("torch._dynamo")


@pytest.fixture
def train_ranks(_ddp_loaded: None, run_ranks: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """`run_ranks` for functions that wrap a model in DistributedDataParallel."""
    return run_ranks


@pytest.fixture
def run_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """Function (function, world, *args) -> return values of the function in `world` gloo processes.

    The processes are forked, so that nothing is imported again; world 1 has no process group. Results travel
    through torch.save.
    """

    def run(function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
        folder = tmp_path / f"ranks_{len(list(tmp_path.glob('ranks_*')))}"
        folder.mkdir()
        context = torch.multiprocessing.get_context("fork")
        members = [
            context.Process(target=_member, args=(function, rank, world, folder, args))
            for rank in range(world)
        ]
        for member in members:
            member.start()
        for member in members:
            member.join(600)
        stuck = [member for member in members if member.is_alive()]
        for member in stuck:
            member.kill()
        reports = [path.read_text() for path in sorted(folder.glob("rank*.txt"))]
        assert not stuck and not reports, "\n".join([f"{len(stuck)} processes hang", *reports])
        return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)]

    return run
