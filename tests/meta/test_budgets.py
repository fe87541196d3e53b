"""Budgets of files and functions, types and docstrings (docs/architecture.md, "Habits")."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for folder in ("maskrcnn_benchmark", "tools") for p in sorted((ROOT / folder).rglob("*.py"))]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions() -> Iterator[tuple[Path, Function]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield path, node


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_stay_small() -> None:
    lengths = {p: len(p.read_text().splitlines()) for p in SOURCES if p.name != "__init__.py"}
    assert statistics.median(lengths.values()) <= 150
    too_long = {
        str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 500 and p.name != "defaults.py"
    }
    assert not too_long


def test_functions_stay_small() -> None:
    # defaults.py is one long list of keys by design.
    lengths = [(p, n.name, _length(n)) for p, n in _functions() if p.name != "defaults.py"]
    too_long = [(str(p.relative_to(ROOT)), name, n) for p, name, n in lengths if n > 80]
    assert not too_long
    share = sum(n > 50 for _, _, n in lengths) / len(lengths)
    assert share <= 0.03, f"{share:.1%} of the functions are longer than 50 lines"


def test_arguments_are_typed() -> None:
    typed = total = 0
    bare: list[str] = []
    for path, node in _functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for extra in (node.args.vararg, node.args.kwarg):
            if extra is not None:
                arguments.append(extra)
        for argument in arguments:
            if argument.arg in ("self", "cls"):
                continue
            total += 1
            if argument.annotation is not None:
                typed += 1
            else:
                bare.append(f"{path.relative_to(ROOT)}:{node.name}({argument.arg})")
    assert typed / total >= 0.95, bare[:20]


def test_public_names_have_docstrings() -> None:
    missing: list[str] = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if path.name != "__init__.py" and not ast.get_docstring(tree):
            missing.append(f"{path.relative_to(ROOT)}: module")
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, *Function.__args__)) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    missing.append(f"{path.relative_to(ROOT)}: {node.name}")
                if isinstance(node, ast.ClassDef):
                    missing += [
                        f"{path.relative_to(ROOT)}: {node.name}.{item.name}"
                        for item in node.body
                        if isinstance(item, Function)
                        and not item.name.startswith("_")
                        and not ast.get_docstring(item)
                    ]
    assert not missing, missing[:30]


def test_tests_keep_pace() -> None:
    package = sum(len(p.read_text().splitlines()) for p in SOURCES)
    tests = sum(len(p.read_text().splitlines()) for p in (ROOT / "tests").rglob("*.py"))
    assert tests >= 0.5 * package, f"{tests} lines of tests for {package} lines of package"
