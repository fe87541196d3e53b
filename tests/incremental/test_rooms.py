"""Rooms of the incremental package import each other in one direction only."""

from __future__ import annotations

import ast
from pathlib import Path

ROOMS = {
    "plan": (),
    "replay": ("plan",),
    "distillation": (),
    "growth": ("plan",),
    "reporting": ("plan",),
    "pipeline": ("plan", "replay", "distillation", "growth", "reporting"),
    "released": ("plan", "distillation", "growth", "pipeline"),
    "comparison": ("plan", "reporting", "pipeline"),
}
PACKAGE = "maskrcnn_benchmark.incremental"


def test_rooms_import_lower_rooms_only(project_root: Path) -> None:
    folder = project_root.joinpath(*PACKAGE.split("."))
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == set(ROOMS)
    for path in folder.glob("*/*.py"):
        room = path.parent.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
                other = str(node.module).removeprefix(f"{PACKAGE}.").partition(".")[0]
                assert other == room or other in ROOMS[room], f"{room}/{path.name} imports {other}"
