"""A module imports only from floors below its own (docs/architecture.md), and no import has side effects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = {
    "utils": 0,
    "config": 0,
    "structures": 1,
    "layers": 2,
    "modeling": 3,
    "data": 3,
    "evaluation": 4,
    "checkpoint": 4,
    "solver": 4,
    "visualize": 5,
    "engine": 6,
    "incremental": 7,
    "doctor": 8,
}
SAME_FLOOR = {("config", "utils")}
PACKAGE = "maskrcnn_benchmark"
ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """Absolute names of the package's modules that a file imports, at top level or inside functions."""
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(here[: len(here) - node.level]) if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def _area(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    relative = path.relative_to(ROOT / PACKAGE).parts
    if len(relative) == 1:
        return
    area = relative[0]
    assert area in FLOORS, f"{area}/ has no floor: add it to docs/architecture.md and to this table"
    for module in _imports(path):
        other = _area(module)
        if other is None or other == area or other not in FLOORS:
            continue
        allowed = FLOORS[other] < FLOORS[area] or (area, other) in SAME_FLOOR
        where = path.relative_to(ROOT)
        assert allowed, f"{where} (floor {FLOORS[area]}) imports {module} (floor {FLOORS[other]})"


def _module_name(path: Path) -> str:
    """Dotted name of a module, or of the package of an `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _import_graph() -> dict[str, set[str]]:
    """Module or package -> those that it imports; packages stand for their `__init__.py`."""
    names = {_module_name(p): p for p in SOURCES}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        targets = (m if m in names else m.rpartition(".")[0] for m in _imports(path))
        graph[name] = {target for target in targets if target in names and target != name}
    return graph


def _assert_no_cycle(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_no_cycle_between_modules() -> None:
    _assert_no_cycle(_import_graph())


def test_no_cycle_between_folders() -> None:
    """Folders side by side (roi_heads and rpn, the rooms of incremental) have no import cycle.

    A folder may read its subfolders, and they what it shares.
    """
    folder = {_module_name(p): ".".join(p.relative_to(ROOT).parent.parts) for p in SOURCES}
    graph: dict[str, set[str]] = {}
    for name, targets in _import_graph().items():
        for target in targets:
            one, other = folder[name], folder[target]
            nested = f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
            if not nested:
                graph.setdefault(one, set()).add(other)
    _assert_no_cycle(graph)


def test_tools_are_thin() -> None:
    for path in sorted((ROOT / "tools").glob("*.py")):
        lines = len(path.read_text().splitlines())
        assert lines <= 120, f"{path.name} has {lines} lines; a tool parses, calls the package and prints"
