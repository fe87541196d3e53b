"""Decisions of setup.py: what is built, and one sentence with a fix when it cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def build(project_root: Path) -> ModuleType:
    """setup.py as a module (it builds nothing when imported)."""
    spec = importlib.util.spec_from_file_location("native_build", project_root / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_toolkit(folder: Path, release: str) -> Path:
    """A folder with an nvcc that only reports its release."""
    (folder / "bin").mkdir()
    (folder / "nvvm").mkdir()
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    nvcc.chmod(0o755)
    return folder


def test_toolkit_of_another_release(build: ModuleType, tmp_path: Path) -> None:
    toolkit = fake_toolkit(tmp_path, "11.8")
    assert "is 11.8, torch was built with 13.0; set CUDA_HOME" in build.toolkit_problem(toolkit, "13.0")
    assert build.toolkit_problem(toolkit, "11.7") is None
    assert "CUDA build of torch" in build.toolkit_problem(toolkit, None)
    assert "set CUDA_HOME" in build.toolkit_problem(None, "13.0")


def test_toolkit_named_by_the_environment(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path, "13.0")))
    assert build.find_toolkit() == tmp_path


def test_force_cuda(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path, "9.0")))
    monkeypatch.setenv("FORCE_CUDA", "0")
    assert build.want_cuda()[:2] == (False, None)
    monkeypatch.setenv("FORCE_CUDA", "1")
    with pytest.raises(SystemExit, match="^error: FORCE_CUDA=1, but "):
        build.want_cuda()
    monkeypatch.setenv("FORCE_CUDA", "yes")
    with pytest.raises(SystemExit, match="FORCE_CUDA must be 0 or 1, got 'yes'"):
        build.want_cuda()


def test_gpu_without_a_toolkit_builds_for_the_cpu_and_says_so(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_CUDA", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(build, "find_toolkit", lambda: None)
    cuda, _, sentence = build.want_cuda()
    assert not cuda and sentence.startswith("warning: CPU kernels only, although a GPU is visible")


def test_missing_compiler(build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler found; install one"):
        build.require_compiler()
    monkeypatch.setenv("CXX", "nocompiler -O1")
    with pytest.raises(SystemExit, match="named by CXX is not found: nocompiler"):
        build.require_compiler()


def test_every_kernel_file_has_a_twin(project_root: Path) -> None:
    """Each operation has a CPU and a CUDA source of the same name; a source with a header is no operation."""
    csrc = project_root / "csrc"
    operations = {p.stem for p in csrc.glob("cpu/*.cpp") if not p.with_suffix(".h").exists()}
    assert operations == {p.stem for p in csrc.glob("cuda/*.cu")}
