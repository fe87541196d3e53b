"""Reference folders with other names: of noise, of images, of files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recompute import recompute_losses, recompute_ops

from checks import fill
from checks.checker import OK, Checker
from checks.noise_text import NoiseReader, noise_prefix
from checks.run import find_jobs, run_folder

GOLDEN = Path(__file__).with_name("golden")
PREFIXES = {"core": "core/shared/", "lst": "lst/golden/", "sipmask": "sip_"}
NEW = "hidden/set-7/"


@contextmanager
def _recorded(names: set[str]) -> Iterator[None]:
    """Collect the names of all noise, image and weight arrays that are made meanwhile."""
    original = fill.noise

    def noise(name: str, shape: Sequence[int]) -> np.ndarray:
        names.add(name)
        return original(name, shape)

    fill.noise = noise
    try:
        yield
    finally:
        fill.noise = original


def _names(folder: Path, job: str) -> set[str]:
    names: set[str] = set()
    (chosen,) = [j for j in find_jobs(folder) if j.name == job]
    with _recorded(names):
        chosen.run(Checker(fast=True))
    return names


def _copy(system: str, stem: str, target: Path, **changes: Any) -> None:
    """Copy one reference with the prefix of its noise replaced."""
    text = (GOLDEN / system / f"{stem}.json").read_text().replace(PREFIXES[system], NEW)
    (target / f"{stem}.json").write_text(json.dumps(json.loads(text) | changes))
    shutil.copy(GOLDEN / system / f"{stem}.npz", target)


def test_recomputed_folder_with_another_prefix_passes(tmp_path: Path) -> None:
    recompute_ops(GOLDEN / "sipmask", tmp_path, NEW)
    recompute_losses(GOLDEN / "sipmask", tmp_path, NEW)
    for name in ("fcos_targets.json", "fcos_targets.npz"):
        shutil.copy(GOLDEN / "sipmask" / name, tmp_path)
    checks, references = list(run_folder(tmp_path)), list(run_folder(_components(tmp_path / "stored")))
    assert [check.line() for check in checks if check.status != OK] == []
    assert [check.name for check in checks] == [check.name for check in references]


def _components(target: Path) -> Path:
    """The stored component files of SipMask alone."""
    target.mkdir()
    for stem in ("ops", "fcos_targets", "benchmark_losses"):
        for ending in ("json", "npz"):
            shutil.copy(GOLDEN / "sipmask" / f"{stem}.{ending}", target)
    return target


def test_stored_outputs_fail_under_another_prefix(tmp_path: Path) -> None:
    _copy("sipmask", "ops", tmp_path)
    assert any(check.status != OK for check in run_folder(tmp_path))


@pytest.mark.parametrize(
    ("system", "stem"),
    [("core", "components"), ("lst", "model"), ("sipmask", "ops"), ("sipmask", "benchmark_losses")],
)
def test_all_noise_has_the_prefix_of_the_file(tmp_path: Path, system: str, stem: str) -> None:
    old = PREFIXES[system]
    _copy(system, stem, tmp_path)
    if system == "lst":
        shutil.copy(GOLDEN / system / "distill_logits.json", tmp_path)
    before, after = _names(GOLDEN / system, stem), _names(tmp_path, stem)
    assert any(name.startswith(NEW) for name in after)
    assert after == {NEW + name.removeprefix(old) if name.startswith(old) else name for name in before}


def test_weights_have_the_prefix_of_the_file(tmp_path: Path) -> None:
    _copy("lst", "model", tmp_path, weight_prefix="weights/")
    shutil.copy(GOLDEN / "lst" / "distill_logits.json", tmp_path)
    assert all(name.startswith((NEW, "weights/roi_heads.")) for name in _names(tmp_path, "model"))


def test_a_prefix_is_told_by_the_file_the_readme_or_our_own_reference(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    assert noise_prefix(path, {"noise_prefix": "a/"}, "lst") == "a/"
    assert noise_prefix(path, {}, "lst") == PREFIXES["lst"]
    (tmp_path / "README.md").write_text('`noise("b/c/pooled", (5,))` and `noise("b/c/logits", (5,))`')
    assert noise_prefix(path, {}, "lst") == "b/c/"
    assert NoiseReader.of({"texts": ["noise('x_a',(2,))", "noise('x_bb',(2,))"]}).prefix == "x_"


def test_files_are_recognised_by_their_content(tmp_path: Path) -> None:
    for number, stem in enumerate(("ops", "benchmark_losses", "fcos_targets", "fcos_r50", "mmdet_r50_ssd")):
        shutil.copy(GOLDEN / "sipmask" / f"{stem}.json", tmp_path / f"file{number}.json")
    shutil.copy(GOLDEN / "core" / "tta.json", tmp_path / "file9.json")
    (tmp_path / "notes.json").write_text("{}")
    kinds = {job.name: job.kind and job.kind.check.__module__ for job in find_jobs(tmp_path)}
    assert kinds == {
        "file0": "checks.sipmask.ops",
        "file1": "checks.sipmask.losses",
        "file2": "checks.sipmask.targets",
        "file3": "checks.sipmask.models",
        "file4": "checks.sipmask.models",
        "file9": "checks.core.models",
    }


def test_no_check_knows_a_prefix() -> None:
    sources = Path(__file__).with_name("checks").rglob("*.py")
    known = [p.name for p in sources if any(prefix in p.read_text() for prefix in PREFIXES.values())]
    assert known == []
