"""Time per stage of a program, measured by wrapping calls while the whole runs."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Elapsed:
    """Wall-clock seconds, and CPU seconds of all threads of the process (less disturbed by others)."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Elapsed) -> Elapsed:
        """Sum of both clocks."""
        return Elapsed(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Elapsed) -> Elapsed:
        """Difference of both clocks."""
        return Elapsed(self.wall - other.wall, self.cpu - other.cpu)

    def to_ms(self) -> Elapsed:
        """The same in milliseconds."""
        return Elapsed(1000 * self.wall, 1000 * self.cpu)


def now(device: torch.device) -> Elapsed:
    """Read both clocks after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Elapsed(time.perf_counter(), time.process_time())


def median_of(times: Sequence[Elapsed]) -> Elapsed:
    """Median of each clock."""
    return Elapsed(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


class StageTimer:
    """Exclusive time per stage in each round; stages are timed by replacing attributes with wrappers.

    The time of a timed call inside a stage counts for the stage of that call only. Objects that are not named
    run at full speed, and so do named ones after `restore`.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rounds: list[dict[str, Elapsed]] = []
        self._round: dict[str, Elapsed] = defaultdict(Elapsed)
        self._nested: list[Elapsed] = []
        self._replaced: dict[tuple[int, str], tuple[Any, bool, Any]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        self._round[name] += Elapsed()  # stages are listed in the order in which they are entered
        self._nested.append(Elapsed())
        start = now(self.device)
        try:
            yield
        finally:
            elapsed = now(self.device) - start
            self._round[name] += elapsed - self._nested.pop()
            if self._nested:
                self._nested[-1] += elapsed

    def wrap(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """Wrap a callable so that its time counts for `stage`."""

        @wraps(call)  # copies the attributes of callable objects as well
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return call(*args, **kwargs)

        return timed

    def replace(self, owner: Any, attribute: str, stage: str) -> None:
        """Replace a callable attribute of an object, of a module its forward pass, by a timed one, once."""
        call = getattr(owner, attribute)
        if isinstance(call, nn.Module):
            owner, attribute, call = call, "forward", call.forward
        if (id(owner), attribute) in self._replaced:
            return
        in_instance = attribute in vars(owner)
        self._replaced[id(owner), attribute] = (owner, in_instance, call)
        setattr(owner, attribute, self.wrap(call, stage))

    def parts(self, owner: Any, stages: Mapping[str, str]) -> None:
        """Time parts of an object, dotted path -> stage; a part that it does not have is skipped."""
        for path, stage in stages.items():
            *parents, attribute = path.split(".")
            holder = owner
            for name in parents:
                holder = getattr(holder, name, None)
            if getattr(holder, attribute, None) is not None:
                self.replace(holder, attribute, stage)

    def restore(self) -> None:
        """Restore all attributes that were replaced."""
        for (_, attribute), (owner, in_instance, call) in self._replaced.items():
            if in_instance:
                setattr(owner, attribute, call)
            else:
                delattr(owner, attribute)
        self._replaced.clear()

    def end_round(self) -> None:
        """End one run of the whole program part."""
        self.rounds.append(dict(self._round))
        self._round.clear()

    def times(self, stage: str) -> list[Elapsed]:
        """Time of a stage in each round, 0 where it was not entered."""
        return [r.get(stage, Elapsed()) for r in self.rounds]
