"""Every notebook runs from top to bottom on small generated data, and is stored without outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from maskrcnn_benchmark.data.datasets.demo.generate import DemoOptions, generate_demo

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "jupyter_notebook").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    generate_demo(tmp_path / "demo", DemoOptions(train=60, val=24, size=64), report=lambda _: None)
    monkeypatch.setenv("MRB_DEMO_DATA", str(tmp_path / "demo"))
    monkeypatch.setenv("PYTHONPATH", f"{path.parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "display_data"]
    assert len(shown) >= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert all(
        not c.get("outputs") and c.get("execution_count") is None for c in cells if c["cell_type"] == "code"
    )
