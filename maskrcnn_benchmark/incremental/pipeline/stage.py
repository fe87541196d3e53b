"""A stage of a run, and the decision whether to skip, resume or run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.utils.errors import ConfigError, UsageError
from maskrcnn_benchmark.utils.files import sha256_json

SKIP, RUN, RESUME = "skip", "run", "resume"
_NO_DEFAULT = object()


@dataclass(frozen=True)
class Stage:
    """One unit of a run that is executed once.

    Attributes:
        phase: -1 for `prepare`. name: "dump", "grow", "replay", "train" or "report".
        inputs: files it reads, by a name for messages. settings: KEY -> value it depends on.
        outputs: files that exist when it is done. run: the action.
        side: further files that it writes and no stage reads, such as records of the training.
        collective: all ranks take part; otherwise rank 0 executes it and the others wait.
        restart: sets earlier files aside when the stage is done anew with other inputs.
        step_back: prepares the stage to be done again with the same inputs because an output is damaged.
        restore: writes a damaged `side` file again, given its path and that of the damaged one (None when it
            was missing), and returns what it did, in words.
        resumable: whether a stage that was begun may resume although its settings changed.
        config_file: settings of the last execution, for messages.
    """

    phase: int
    name: str
    inputs: dict[str, Path]
    settings: dict[str, Any]
    outputs: tuple[Path, ...]
    run: Callable[[], object]
    config_file: Path
    side: tuple[Path, ...] = ()
    collective: bool = False
    restart: Callable[[], None] = field(default=lambda: None)
    step_back: Callable[[], None] = field(default=lambda: None)
    restore: Callable[[Path, Path | None], str] = field(default=lambda path, damaged: "")
    resumable: Callable[[], bool] = field(default=lambda: False)

    @property
    def key(self) -> str:
        """Name of the stage in the state file."""
        return self.name if self.phase < 0 else f"phase_{self.phase}/{self.name}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings that differ from their defaults, so that a new key changes nothing."""
        defaults = dict(leaves(get_cfg()))
        return sha256_json(
            {key: v for key, v in self.settings.items() if v != defaults.get(key, _NO_DEFAULT)}
        )


def decide(stage: Stage, state: RunState, run_dir: Path) -> str:
    """SKIP when the stage is done with the same inputs and settings, RESUME when begun with them, else RUN.

    Unless the stage is skipped, calls its `restart` for RUN, then records in `state` that it begins. A
    process killed in between decides the same again. A stage whose outputs are missing although nothing
    else changed is done again whatever depends on it, because it gives the same result; so are later stages
    where it did not.

    Raises:
        UsageError: when it would have to be done again although a later phase depends on its result.
        DataError: when an input does not exist.
    """
    inputs = {name: state.file_hash(path) for name, path in stage.inputs.items()}
    config = stage.fingerprint
    record = state.record(stage.key)
    same_inputs = record is not None and record["inputs"] == inputs
    same = record is not None and same_inputs and record["config"] == config
    if same and state.finished(stage.key) and all(path.exists() for path in stage.outputs):
        return SKIP
    later = _dependent_phases(stage, state, run_dir)
    if later and not _repairs(stage, state, record, inputs):
        raise UsageError(
            f"stage {stage.key} would have to be done again ({_reason(stage, record, inputs)}), but phase "
            f"{later[0]} was made from its result: undo the change, use a new OUTPUT_DIR, or delete the "
            f"folders of phase {later[0]} and later in {run_dir}"
        )
    resume = not state.finished(stage.key) and (same or (same_inputs and stage.resumable()))
    if not resume:
        stage.restart()
    begin(stage, state)
    return RESUME if resume else RUN


def _repairs(stage: Stage, state: RunState, record: dict[str, Any] | None, inputs: dict[str, str]) -> bool:
    """Whether a stage is done again for the sake of damaged files alone, not of changed settings or data.

    Its settings are the same, and inputs that changed are intact results of earlier stages of this run.
    """
    if record is None or record["config"] != stage.fingerprint:
        return False
    changed = [name for name in inputs if record["inputs"].get(name) != inputs[name]]
    return all(state.recorded_hash(stage.inputs[name]) == inputs[name] for name in changed)


def difference(stage: Stage, record: dict[str, Any], state: RunState, config_file: Path) -> str:
    """Inputs or settings of `stage` that differ from those in the record of another run; "" when none do.

    `config_file`: the settings of that run, for the message.
    """
    inputs = {name: state.file_hash(path) for name, path in stage.inputs.items()}
    if record["inputs"] == inputs and record["config"] == stage.fingerprint:
        return ""
    return _reason(replace(stage, config_file=config_file), record, inputs)


def begin(stage: Stage, state: RunState, *, finished: bool = False) -> None:
    """Record in `state` that a stage begins, or is finished, with its present inputs and settings."""
    inputs = {name: state.file_hash(path) for name, path in stage.inputs.items()}
    state.begin(stage.key, inputs, stage.fingerprint, finished=finished)


def _dependent_phases(stage: Stage, state: RunState, run_dir: Path) -> list[int]:
    """Later phases that were begun and whose folder still exists; none depends on a report."""
    if stage.name == "report":
        return []
    begun = {
        int(key.split("/")[0].removeprefix("phase_")) for key in state.stages() if key.startswith("phase_")
    }
    return sorted(p for p in begun if p > stage.phase and (run_dir / f"phase_{p}").is_dir())


def _reason(stage: Stage, record: dict[str, Any] | None, inputs: dict[str, str]) -> str:
    """Differences from the recorded execution, in words."""
    if record is None:
        return "it was never done in this folder"
    changed = [name for name in inputs if record["inputs"].get(name) != inputs[name]]
    if changed:
        return f"{', '.join(changed)} changed"
    if record["config"] == stage.fingerprint:
        missing = [str(path) for path in stage.outputs if not path.exists()]
        return f"{missing[0]} is missing" if missing else "it was not finished"
    if not stage.config_file.is_file():
        return "its settings changed"
    try:
        before = dict(leaves(load_config(stage.config_file, for_comparison=True)))
    except ConfigError:  # a damaged file of the run
        return "its settings changed"
    differing = [f"{k} was {before.get(k)}, now {v}" for k, v in stage.settings.items() if before.get(k) != v]
    return "; ".join(differing[:3]) or "its settings changed"
