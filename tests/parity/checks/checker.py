"""Comparisons that end in one line each: name, worst error, tolerance, verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

OK, FAIL, UNSUPPORTED, SKIPPED = "ok", "FAIL", "not supported yet", "skipped"

# Tolerances of the reference folders' notes. Relative to the largest absolute value unless said otherwise.
VALUES = 1e-4
LOSS = 1e-4
GRADIENT = 1e-3
BOX_PIXELS = 0.01
SCORE = 1e-4
UNMATCHED = 0.01
# LST files: |difference| <= RELATIVE * |expected| + ABSOLUTE
RELATIVE, ABSOLUTE = 1e-4, 1e-5


@dataclass(frozen=True)
class Check:
    """One comparison. `error` and `tolerance` are None where nothing was measured."""

    name: str
    status: str
    error: float | None = None
    tolerance: float | None = None
    note: str = ""

    def line(self, width: int = 0) -> str:
        """The check as one line of text."""
        measured = ""
        if self.error is not None and self.tolerance is not None:
            measured = f"error {self.error:.3g}  tolerance {self.tolerance:.3g}"
        note = f": {self.note}" if self.note else ""
        return f"{self.name:<{width}}  {measured:<40}  {self.status}{note}"


class Checker:
    """Collects checks; `prefix` stands before every name. `fast` leaves out what takes gigabytes."""

    def __init__(self, *, fast: bool = False) -> None:
        self.fast = fast
        self.checks: list[Check] = []
        self.prefix = ""

    def add(self, name: str, error: float, tolerance: float, note: str = "") -> None:
        """Record a measured error; anything not <= tolerance (also NaN) fails."""
        status = OK if error <= tolerance else FAIL
        self.checks.append(Check(self.prefix + name, status, float(error), float(tolerance), note))

    def fail(self, name: str, note: str) -> None:
        """Record a failure without a number."""
        self.checks.append(Check(self.prefix + name, FAIL, note=note))

    def unsupported(self, name: str, note: str = "") -> None:
        """Record something the code base cannot do yet."""
        self.checks.append(Check(self.prefix + name, UNSUPPORTED, note=note))

    def skipped(self, name: str, note: str) -> None:
        """Record something left out on request."""
        self.checks.append(Check(self.prefix + name, SKIPPED, note=note))

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Names inside get `name.` in front; an exception becomes a failed check instead of ending the
        run.
        """
        before = self.prefix
        self.prefix = f"{before}{name}."
        try:
            yield
        except Exception as error:
            self.checks.append(Check(before + name, FAIL, note=_one_line(error)))
        finally:
            self.prefix = before

    def values(
        self, name: str, got: Any, expected: Any, tolerance: float = VALUES, *, scale: float | None = None
    ) -> None:
        """Compare differences relative to `scale` (default: the largest absolute expected value)."""
        self._compare(name, got, expected, tolerance, lambda e: max(scale or float(np.abs(e).max()), 1e-12))

    def relative(self, name: str, got: Any, expected: Any, tolerance: float, *, floor: float = 1e-9) -> None:
        """Compare differences relative to each expected value (at least `floor`)."""
        self._compare(name, got, expected, tolerance, lambda e: np.maximum(np.abs(e), floor))

    def close(self, name: str, got: Any, expected: Any) -> None:
        """Compare by |difference| <= RELATIVE * |expected| + ABSOLUTE, written as one relative error."""
        self._compare(name, got, expected, RELATIVE, lambda e: np.abs(e) + ABSOLUTE / RELATIVE)

    def equal(self, name: str, got: Any, expected: Any) -> None:
        """Require that no element differs (integers, flags, strings)."""
        a, b = _array(got), _array(expected)
        if a.shape != b.shape:
            self.fail(name, f"shape {a.shape}, expected {b.shape}")
            return
        different = np.flatnonzero((a != b).reshape(-1))
        note = ""
        if len(different):
            first = int(different[0])
            note = f"first at {first}: {a.reshape(-1)[first]!s} instead of {b.reshape(-1)[first]!s}"
        self.add(name, float(len(different)), 0.0, note)

    def same(self, name: str, got: Any, expected: Any) -> None:
        """Require equal plain Python data."""
        self.add(
            name, 0.0 if got == expected else 1.0, 0.0, "" if got == expected else _difference(got, expected)
        )

    def boxes(self, name: str, got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
        """Compare two sets of (boxes, scores[, labels]): the fraction without a partner of equal label
        within BOX_PIXELS and SCORE.
        """
        size = max(len(got[0]), len(expected[0]))
        if size == 0:
            self.add(name, 0.0, UNMATCHED)
            return
        pairs = match_boxes(got, expected)
        note = (
            ""
            if pairs == size
            else f"{pairs} pairs of {len(got[0])} computed and {len(expected[0])} expected"
        )
        self.add(name, (size - pairs) / size, UNMATCHED, note)

    def _compare(self, name: str, got: Any, expected: Any, tolerance: float, scale: Callable) -> None:
        a, b = _array(got).astype(np.float64), _array(expected).astype(np.float64)
        if a.shape != b.shape:
            self.fail(name, f"shape {a.shape}, expected {b.shape}")
            return
        self.add(name, float((np.abs(a - b) / scale(b)).max()) if a.size else 0.0, tolerance)


def match_boxes(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> int:
    """Count one-to-one pairs of (N, 4) boxes, greedily: each expected box takes the closest free one that
    is close enough.
    """
    boxes, targets = np.asarray(got[0], np.float64), np.asarray(expected[0], np.float64)
    free = np.ones(len(boxes), bool)
    pairs = 0
    for index in range(len(targets)):
        distance = np.abs(boxes - targets[index]).max(axis=1) if len(boxes) else np.zeros(0)
        fits = free & (distance <= BOX_PIXELS)
        fits &= np.abs(np.asarray(got[1], np.float64) - float(expected[1][index])) <= SCORE
        if len(expected) > 2:
            fits &= np.asarray(got[2]) == expected[2][index]
        if fits.any():
            free[int(np.where(fits, distance, np.inf).argmin())] = False
            pairs += 1
    return pairs


def _array(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def _difference(got: Any, expected: Any) -> str:
    if isinstance(got, list) and isinstance(expected, list):
        where = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
        if where is None:
            return f"{len(got)} entries, expected {len(expected)}"
        return f"entry {where} is {str(got[where])[:80]}, expected {str(expected[where])[:80]}"
    return f"{str(got)[:80]}, expected {str(expected)[:80]}"
