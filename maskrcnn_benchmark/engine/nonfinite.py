"""What a run leaves when a loss is not finite: the last good weights, a description, and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.checkpointer import LAST
from maskrcnn_benchmark.engine.finite_check import NonFiniteError
from maskrcnn_benchmark.engine.hooks import Run
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.files import write_json

NONFINITE_FILE = "nonfinite.json"
# Images named in the message; the file names all.
_SHOWN = 4


def stop(
    cfg: CfgNode, run: Run, error: NonFiniteError, folder: Path, image_name: Callable[[int], str] | None
) -> NonFiniteError:
    """Save the state before the failed update and describe it in `nonfinite.json`; the error to raise.

    The checkpoint is an ordinary one. Every rank must call this. `image_name` gives the file name for a
    position in the data set.
    """
    if run.iteration > 0 and run.saved_at != run.iteration:
        run.save()
    saved = f"model_{run.iteration:07d}.pth" if run.iteration > 0 else None
    record = _record(error, saved, image_name)
    comm.on_main(lambda: write_json(folder / NONFINITE_FILE, record, indent=1))
    kept = (
        f"all that was trained is saved in {folder / saved}"
        if saved
        else "nothing had been trained before it"
    )
    files = [name for culprit in record["causes"] for name in culprit["files"]]
    message = (
        f"{error}; {kept}, details are in {folder / NONFINITE_FILE}. The same command would stop here again: "
        f"check these images{_few(files)} and their annotations, lower the learning rate ({error.lr:.3g} "
        f"now) or clip gradients, {_settings(cfg)}, and start again: the run goes on from there. "
        "Should it stop at once, the weights had gone wrong before: write the name of an older checkpoint "
        f"into {folder / LAST}"
    )
    return NonFiniteError(message, error.culprits, error.values, error.iteration, error.lr)


def _record(
    error: NonFiniteError, saved: str | None, image_name: Callable[[int], str] | None
) -> dict[str, Any]:
    """Content of the file: plain JSON, numbers that are not finite as text."""
    return {
        "iteration": error.iteration,
        "learning_rate": error.lr,
        "checkpoint": saved,
        "values": {name: _plain(value) for name, value in error.values.items()},
        "causes": [
            {
                "name": culprit.name,
                "value": _plain(culprit.value),
                "image_ids": culprit.image_ids,
                "files": [image_name(index) for index in culprit.indices] if image_name else [],
            }
            for culprit in error.culprits
        ],
    }


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _few(names: Sequence[str]) -> str:
    """The first file names in brackets; nothing where none is known."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return f" ({', '.join(distinct[:_SHOWN])}{more})" if distinct else ""


def _settings(cfg: CfgNode) -> str:
    """The words on the command line that do it; a phase of an LST run has settings of its own."""
    if not cfg.LST.ENABLED:
        return f"SOLVER.BASE_LR {cfg.SOLVER.BASE_LR / 2:g} or SOLVER.CLIP_GRADIENTS.ENABLED True"
    halved = f"'SOLVER.BASE_LR', {cfg.SOLVER.BASE_LR / 2:g}"
    clipped = "'SOLVER.CLIP_GRADIENTS.ENABLED', True"
    phase = cfg.LST.PHASE
    given = [f"LST.PHASE_OVERRIDES \"{{'{phase}': [{words}]}}\"" for words in (halved, clipped)]
    return " or ".join(given)
