"""Match tensors of a file with tensors of the model: by name, by tail of a name, or by order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from torch import Tensor

from maskrcnn_benchmark.checkpoint.families.base import COUNTER
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.table import format_table

T = TypeVar("T")
Shape = tuple[int, ...]


class Mismatch(NamedTuple):
    """A pair of matching names with different shapes."""

    model_name: str
    file_name: str
    model_shape: Shape
    file_shape: Shape


@dataclass
class MatchReport:
    """The outcome of matching, name by name.

    `matched` maps names of the model to names of the file; `missing` are names of the model without a
    counterpart, `unexpected` names of the file without use, `mismatched` pairs with different shapes.
    """

    matched: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)

    def lines(self, limit: int = 12) -> list[str]:
        """The report as text: names that share a module on one line, at most `limit` lines per kind."""
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
    """Find for every name of the model the longest name of the file that is its tail, whole components only.

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
    for name, match in suffix_match(model_shapes, file_shapes).items():
        if match is None:
            report.missing.append(name)
            continue
        used.add(match)
        expected, shape = tuple(model_shapes[name]), tuple(file_shapes[match])
        if expected == shape:
            report.matched[name] = match
        else:
            report.mismatched.append(Mismatch(name, match, expected, shape))
    report.unexpected = [name for name in file_shapes if name not in used]
    return report


def deform_names(state: Mapping[str, T], model_names: Iterable[str]) -> dict[str, T]:
    """Call `X.weight` `X.conv.weight` where the model's convolution X is deformable .

    A deformable convolution of the model has `X.offset.weight` and `X.conv.weight`. Names of the file may
    be tails of the model's; those that fit already stay.
    """
    names = set(model_names)
    deformable = {
        name.removesuffix(".offset.weight")
        for name in names
        if name.endswith(".offset.weight") and f"{name.removesuffix('.offset.weight')}.conv.weight" in names
    }
    tails = {".".join(parts[i:]) for parts in (n.split(".") for n in deformable) for i in range(len(parts))}
    result = {}
    for name, value in state.items():
        stem = name.removesuffix(".weight")
        becomes = name != stem and "." in stem and stem in tails and f"{stem}.conv.weight" not in state
        result[f"{stem}.conv.weight" if becomes else name] = value
    return result


def match_by_order(
    state: Mapping[str, Tensor], targets: Mapping[str, Tensor], *, where: str = "the file"
) -> dict[str, Tensor]:
    """The first tensors of a file, of any shape (...,), under the names of `targets`, paired by their order.

    For files of the same network under other names. Counters of batch norm are skipped on both sides, and so
    are tensors of the file behind the last target (a classifier).

    Raises:
        CheckpointError: naming the first pair whose shapes differ, or that the file ends too early.
    """
    names = [name for name in targets if not name.endswith(COUNTER)]
    in_file = [name for name in state if not name.endswith(COUNTER)]
    if len(in_file) < len(names):
        raise CheckpointError(
            f"{where} has {len(in_file)} tensors, the backbone {len(names)}; by order they must be the same "
            "network"
        )
    for name, other in zip(names, in_file, strict=False):
        expected, shape = tuple(targets[name].shape), tuple(state[other].shape)
        if expected != shape:
            raise CheckpointError(
                f"{where}: by order {other} {shape} meets {name} {expected}; the networks are not the same"
            )
    return {name: state[other] for name, other in zip(names, in_file, strict=False)}
