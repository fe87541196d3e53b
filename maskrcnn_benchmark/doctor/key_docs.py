"""Meaning of every key: the comments of `config/defaults.py`, which stand beside the defaults."""

from __future__ import annotations

import ast
import functools
import inspect
import io
import tokenize
from pathlib import Path

from maskrcnn_benchmark.config import defaults
from maskrcnn_benchmark.config.models import families

_ROOT = "get_cfg"
_LIKE_ABOVE = "the same"


def key_meanings() -> dict[str, str]:
    """Return full key -> comment of every key in the tree of defaults.

    A comment stands behind the value or, alone on its lines, above the assignment. "the same, testing" refers
    to the key above and gets that key's comment in front. Sections of families from outside the package are
    read from the source of their `defaults`.
    """
    result = dict(_meanings(defaults.__file__, _ROOT, ""))
    for family in families():
        if family.defaults is not None:
            source = inspect.getsourcefile(family.defaults) or ""
            result |= _meanings(source, family.defaults.__name__, f"MODEL.{family.section}.")
    return result


@functools.cache
def _meanings(path: str, root: str, start: str) -> dict[str, str]:
    """Return key -> comment of the keys that the function `root` of a source file sets, behind `start`."""
    source = Path(path).read_text(encoding="utf-8")
    comments, alone = _comments(source)
    functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    result: dict[str, str] = {}

    def visit(name: str, prefix: str) -> None:
        above = ""
        for statement in functions[name].body:
            path = _attribute_path(statement)
            if path is None:
                if _called(statement) in functions:  # a node that starts with the keys of another one
                    visit(_called(statement), prefix)
                continue
            key = f"{prefix}{path}"
            section = _called(statement)
            if section in functions:
                visit(section, f"{key}.")
                continue
            if section == "CfgNode" and not _takes_new_keys(statement):
                continue  # a node whose keys follow
            text = _comment_of(statement, comments, alone)
            if text.startswith(_LIKE_ABOVE):
                text = f"{above}; {text}"
            else:
                above = text
            if text:
                result[key] = text

    visit(root, start)
    return result


def meaning_of(key: str) -> str:
    """Return the comment of a key; that of its template or of its node for a key that a user adds."""
    meanings = key_meanings()
    for node, template in defaults.TEMPLATES.items():
        if key.startswith(f"{node}."):
            return meaning_of(template + key[len(node) :])
    while key not in meanings and "." in key:
        key = key.rpartition(".")[0]
    return meanings.get(key, "")


def _comments(source: str) -> tuple[dict[int, str], set[int]]:
    """Return line number -> comment text, and the lines that hold nothing else."""
    texts: dict[int, str] = {}
    alone: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            texts[token.start[0]] = token.string.lstrip("# ").rstrip()
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    return texts, alone


def _takes_new_keys(statement: ast.stmt) -> bool:
    """Return whether an assigned node is one that users fill: `CfgNode(new_allowed=True)`."""
    return isinstance(statement, ast.Assign) and bool(getattr(statement.value, "keywords", []))


def _attribute_path(statement: ast.stmt) -> str | None:
    """Return "A.B" of an assignment `x.A.B = ...`; None for other statements."""
    if not isinstance(statement, ast.Assign):
        return None
    parts: list[str] = []
    target: ast.expr = statement.targets[0]
    while isinstance(target, ast.Attribute):
        parts.insert(0, target.attr)
        target = target.value
    return ".".join(parts) or None


def _called(statement: ast.stmt) -> str:
    """Return the name of the function whose result is assigned; "" for other values."""
    value = statement.value if isinstance(statement, ast.Assign) else None
    return value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""


def _comment_of(statement: ast.stmt, comments: dict[int, str], alone: set[int]) -> str:
    """Return the comment inside the lines of a statement, else the block of comment lines right above it."""
    end = statement.end_lineno or statement.lineno
    inside = [comments[line] for line in range(statement.lineno, end + 1) if line in comments]
    if inside:
        return " ".join(inside)
    first = statement.lineno
    while first - 1 in alone:
        first -= 1
    return " ".join(comments[line] for line in range(first, statement.lineno))
