"""Budgets of files and functions, types and docstrings (docs/architecture.md, "Habits")."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "maskrcnn_benchmark").rglob("*.py"))
SOURCES = [*PACKAGE, *sorted((ROOT / "tools").rglob("*.py"))]
MIN_LINES, MAX_LINES = 40, 500
# File of the package with fewer than MIN_LINES lines -> why it is one file.
SHORT_FILES = {
    "data/datasets/demo/__main__.py": "entry point of python -m",
    "data/transforms/compose.py": "interface that all transforms share",
    "incremental/plan/run_folder.py": "names of run files, read by all rooms",
    "modeling/checks.py": "check shared by RPN, RoI heads, one-stage heads and test-time augmentation",
    "modeling/detectors/one_stage.py": "the detector of all one-stage families",
    "modeling/heads/build.py": "builder above the folders of all one-stage heads",
    "solver/precision.py": "precision of training and inference, used without the solver",
    "structures/features.py": "contract between backbones, necks and heads",
    "utils/rng.py": "the one source of seeds",
    "visualize/colors.py": "palette and font that all drawing shares",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions() -> Iterator[tuple[Path, Function]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield path, node


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_have_one_subject_of_fair_size() -> None:
    """Median of 80 to 150 lines; a file under MIN_LINES has a reason, none is above MAX_LINES."""
    lengths = {p: _lines(p) for p in PACKAGE if p.name != "__init__.py"}
    assert 80 <= statistics.median(lengths.values()) <= 150
    short = {p.relative_to(ROOT / "maskrcnn_benchmark").as_posix(): n for p, n in lengths.items()}
    short = {name: n for name, n in short.items() if n < MIN_LINES and name not in SHORT_FILES}
    assert not short, f"merge these where their subject lives, or give a reason in SHORT_FILES: {short}"
    # defaults.py is one long list of keys by design.
    sources = [p for p in SOURCES if p.name != "defaults.py"]
    too_long = {str(p.relative_to(ROOT)): _lines(p) for p in sources if _lines(p) > MAX_LINES}
    assert not too_long, f"split these by subject: {too_long}"


def test_reasons_of_short_files_are_given() -> None:
    assert all(len(reason.split()) >= 3 for reason in SHORT_FILES.values())
    stale = [name for name in SHORT_FILES if _lines(ROOT / "maskrcnn_benchmark" / name) >= MIN_LINES]
    assert not stale, f"these are short no more: {stale}"


def test_functions_stay_small() -> None:
    lengths = [(p, n.name, _length(n)) for p, n in _functions() if p.name != "defaults.py"]
    too_long = [(str(p.relative_to(ROOT)), name, n) for p, name, n in lengths if n > 80]
    assert not too_long
    fraction = sum(n > 50 for _, _, n in lengths) / len(lengths)
    assert fraction <= 0.03, f"{fraction:.1%} of the functions are longer than 50 lines"


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
