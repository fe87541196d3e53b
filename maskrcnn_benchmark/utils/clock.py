"""Where the time of a program goes: calls of its parts are clocked while the whole runs."""

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
    """Elapsed seconds, and those that all threads of the process computed (less disturbed by others)."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Elapsed) -> Elapsed:
        """Both together."""
        return Elapsed(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Elapsed) -> Elapsed:
        """What is left of this without the other."""
        return Elapsed(self.wall - other.wall, self.cpu - other.cpu)

    def to_ms(self) -> Elapsed:
        """The same in milliseconds."""
        return Elapsed(1000 * self.wall, 1000 * self.cpu)


def now(device: torch.device) -> Elapsed:
    """Both clocks, after the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Elapsed(time.perf_counter(), time.process_time())


def median_of(times: Sequence[Elapsed]) -> Elapsed:
    """Median of either clock."""
    return Elapsed(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


class Clock:
    """Time per stage of the rounds so far; parts are clocked by replacing attributes with wrappers.

    The time of a stage is its own: what clocked calls inside it took counts for their stages. Only the
    objects that are named pay for it, and only while they are replaced.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rounds: list[dict[str, Elapsed]] = []
        self._now: dict[str, Elapsed] = defaultdict(Elapsed)
        self._inner: list[Elapsed] = []
        self._replaced: dict[tuple[int, str], tuple[Any, bool, Any]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Clock a block."""
        self._now[name] += Elapsed()  # stages are listed in the order in which they are entered
        self._inner.append(Elapsed())
        start = now(self.device)
        try:
            yield
        finally:
            spent = now(self.device) - start
            self._now[name] += spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    def wrap(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The same callable, whose time counts for `stage`."""

        @wraps(call)  # takes over the attributes of callable objects as well
        def clocked(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return call(*args, **kwargs)

        return clocked

    def replace(self, owner: Any, attribute: str, stage: str) -> None:
        """Clock one callable attribute of an object, once; of a module its forward pass."""
        call = getattr(owner, attribute)
        if isinstance(call, nn.Module):
            owner, attribute, call = call, "forward", call.forward
        if (id(owner), attribute) in self._replaced:
            return
        own = attribute in vars(owner)
        self._replaced[id(owner), attribute] = (owner, own, call)
        setattr(owner, attribute, self.wrap(call, stage))

    def parts(self, owner: Any, stages: Mapping[str, str]) -> None:
        """Clock parts of an object, dotted path -> stage; a part that it does not have is left out."""
        for path, stage in stages.items():
            *way, attribute = path.split(".")
            holder = owner
            for name in way:
                holder = getattr(holder, name, None)
            if getattr(holder, attribute, None) is not None:
                self.replace(holder, attribute, stage)

    def restore(self) -> None:
        """Put back everything that was replaced."""
        for (_, attribute), (owner, own, call) in self._replaced.items():
            if own:
                setattr(owner, attribute, call)
            else:
                delattr(owner, attribute)
        self._replaced.clear()

    def end_round(self) -> None:
        """Close one run of the whole."""
        self.rounds.append(dict(self._now))
        self._now.clear()

    def times(self, stage: str) -> list[Elapsed]:
        """The time of a stage in every round, 0 where it was not entered."""
        return [r.get(stage, Elapsed()) for r in self.rounds]
