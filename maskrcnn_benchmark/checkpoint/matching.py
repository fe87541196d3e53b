"""Which tensor of a file belongs to which tensor of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from maskrcnn_benchmark.utils.table import format_table

T = TypeVar("T")
Shape = tuple[int, ...]


class Mismatch(NamedTuple):
    """A name that fits and a shape that does not."""

    model_name: str
    file_name: str
    model_shape: Shape
    file_shape: Shape


@dataclass
class MatchReport:
    """What became of every name.

    `matched` maps names of the model to names of the file; `missing` are names of the model without a
    counterpart, `unexpected` names of the file without use, `mismatched` pairs with different shapes.
    """

    matched: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)

    def lines(self, limit: int = 12) -> list[str]:
        """The report in words, names that share a module on one line, at most `limit` lines per kind."""
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        lines = [f"{len(self.matched)} of the model's {total} tensors are in the file"]
        renamed = sum(a != b for a, b in self.matched.items())
        if renamed:
            lines[0] += f", {renamed} of them under a shorter name"
        for title, names in (
            ("not in the file, keep their initial values", self.missing),
            ("in the file, not in the model", self.unexpected),
        ):
            if names:
                groups = group_by_module(names)
                lines.append(f"{len(names)} {title}:")
                lines += [f"  {g}" for g in groups[:limit]]
                if len(groups) > limit:
                    lines.append(f"  ... and {len(groups) - limit} more modules")
        if self.mismatched:
            lines.append(f"{len(self.mismatched)} have another shape in the file and are left out:")
            rows = [(m.model_name, str(m.model_shape), str(m.file_shape)) for m in self.mismatched[:limit]]
            table = format_table(("name", "model", "file"), rows)
            lines += [f"  {line}" for line in table.splitlines()]
            if len(self.mismatched) > limit:
                lines.append(f"  ... and {len(self.mismatched) - limit} more")
        return lines


def group_by_module(names: Sequence[str]) -> list[str]:
    """Names by module: ["a.weight", "a.bias", "b.w"] gives ["a (weight, bias)", "b (w)"]."""
    groups: dict[str, list[str]] = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        groups.setdefault(module, []).append(leaf)
    return [
        f"{module} ({', '.join(leaves)})" if module else ", ".join(leaves)
        for module, leaves in groups.items()
    ]


def strip_module_prefix(state: Mapping[str, T]) -> dict[str, T]:
    """Take one leading `module.` off every name, if every name has it (a file of a parallel run)."""
    prefix = "module."
    if state and all(name.startswith(prefix) for name in state):
        return {name[len(prefix) :]: value for name, value in state.items()}
    return dict(state)


def suffix_match(model_names: Iterable[str], file_names: Iterable[str]) -> dict[str, str | None]:
    """For every name of the model the longest name of the file that is its tail, whole components only.

    "layer1.0.conv1.weight" fits "backbone.body.layer1.0.conv1.weight". A tail must not begin right behind a
    number: the stem's "conv1.weight" says nothing about "layer3.7.conv1.weight".
    One name of the file may serve several names of the model (modules that are listed twice).
    """
    known = set(file_names)
    result: dict[str, str | None] = {}
    for name in model_names:
        parts = name.split(".")
        tails = (
            ".".join(parts[start:])
            for start in range(len(parts))
            if start == 0 or not parts[start - 1].isdecimal()
        )
        result[name] = next((tail for tail in tails if tail in known), None)
    return result


def match_names(model_shapes: Mapping[str, Shape], file_shapes: Mapping[str, Shape]) -> MatchReport:
    """Match the tensors of a model with those of a file by name, then compare shapes.

    An equal name wins over a shorter one. A best name with another shape is reported, not replaced by a
    worse name.
    """
    report = MatchReport()
    used: set[str] = set()
    for name, found in suffix_match(model_shapes, file_shapes).items():
        if found is None:
            report.missing.append(name)
            continue
        used.add(found)
        wanted, given = tuple(model_shapes[name]), tuple(file_shapes[found])
        if wanted == given:
            report.matched[name] = found
        else:
            report.mismatched.append(Mismatch(name, found, wanted, given))
    report.unexpected = [name for name in file_shapes if name not in used]
    return report
