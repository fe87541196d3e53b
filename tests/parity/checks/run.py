"""Finds out what a reference folder holds and runs every check that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from checks.checker import FAIL, OK, SKIPPED, UNSUPPORTED, Check, Checker
from checks.core import components as core_components
from checks.core import models as core_models
from checks.core import params as core_params
from checks.lst import data as lst_data
from checks.lst import eval as lst_eval
from checks.lst import model as lst_model
from checks.lst import params as lst_params
from checks.lst import replay as lst_replay
from checks.sipmask import losses as sipmask_losses
from checks.sipmask import models as sipmask_models
from checks.sipmask import ops as sipmask_ops
from checks.sipmask import shapes as sipmask_shapes
from checks.sipmask import targets as sipmask_targets
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json

Job = tuple[str, Callable[[Checker], None]]


def run_folder(folder: Path, *, fast: bool = False, only: str = "") -> Iterator[Check]:
    """Checks of one folder as they are done.

    `fast` leaves out the one layer that takes gigabytes; `only` keeps jobs whose name contains it. Raises
    DataError when the folder does not exist or holds nothing known.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of the reference files")
    jobs = find_jobs(folder, fast=fast)
    if not jobs:
        raise DataError(
            f"{folder} holds no reference file of a known format "
            "(components.json, *_eval.json, splits.json, ...)"
        )
    for name, job in jobs:
        if only not in name:
            continue
        checker = Checker()
        try:
            job(checker)
        except Exception as error:
            checker.fail(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        yield from checker.checks


def find_jobs(folder: Path, *, fast: bool) -> list[Job]:
    """Name and function of everything that the files of `folder` allow to check."""
    jobs: list[Job] = []
    if (folder / "components.json").exists():
        jobs.append(("components", partial(core_components.check_components, folder)))
    for path in sorted((folder / "params").glob("*.json")):
        jobs.append((f"params.{path.stem}", partial(core_params.check_parameter_file, folder, path)))
    for path in sorted(folder.glob("*.json")):
        if _is_model(path):
            jobs.append((path.stem, partial(core_models.check_model, folder, path.stem)))
    for path in sorted(folder.glob("shapes_*.json")):
        jobs.append((path.stem, partial(sipmask_shapes.check_shapes, path)))
    known: list[tuple[str, Callable[[Checker], None]]] = [
        ("splits", partial(lst_data.check_splits, folder)),
        ("replay", partial(lst_replay.check_replay, folder)),
        ("model", partial(lst_model.check_model, folder, fast=fast)),
        ("grow", partial(lst_data.check_grow, folder)),
        ("eval", partial(lst_eval.check_evaluation, folder)),
        ("parameters", partial(lst_params.check_parameters, folder)),
        ("ops", partial(sipmask_ops.check_ops, folder)),
        ("fcos_targets", partial(sipmask_targets.check_targets, folder)),
        ("benchmark_losses", partial(sipmask_losses.check_losses, folder)),
        *((name, partial(sipmask_models.check_model, folder, name)) for name in sipmask_models.NAMES),
    ]
    jobs += [(name, job) for name, job in known if (folder / f"{name}.json").exists()]
    if (folder / "splits.json").exists() and (folder / "eval.json").exists():
        jobs.append(("step_state", partial(lst_data.check_phase_labels, folder)))
    return jobs


def _is_model(path: Path) -> bool:
    """Whether a file describes a whole model: it lists settings and images. Unreadable ones fail when
    checked.
    """
    try:
        content = read_json(path, what="reference file")
    except DataError:
        return True
    return isinstance(content, dict) and {"config_diff_from_defaults", "images"} <= set(content)


def summary(checks: list[Check]) -> str:
    """One line with the number of checks of every verdict."""
    counts = {status: sum(c.status == status for c in checks) for status in (OK, FAIL, UNSUPPORTED, SKIPPED)}
    return f"{len(checks)} checks: " + ", ".join(
        f"{count} {status}" for status, count in counts.items() if count
    )


def passed(checks: list[Check]) -> bool:
    """Whether something was checked and nothing failed."""
    return any(c.status == OK for c in checks) and all(c.status != FAIL for c in checks)
