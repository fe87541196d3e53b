"""Every notebook runs from top to bottom on small generated data, is short, and is stored without outputs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.data.datasets.demo.generate import DemoOptions, generate_demo

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "jupyter_notebook").glob("*.ipynb"))
FIGURES = {
    "LVIS_visualization": 9,
    "balanced_replay": 4,
    "dataset_preprocess": 2,
    "lst_results": 5,
    "quick_start": 2,
    "trim_coco_pretrained_model": 1,
}


@pytest.fixture
def run_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute a notebook in an empty folder on demo data; return its text and its number of figures."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    generate_demo(tmp_path / "demo", DemoOptions(train=60, val=24, size=64), report=lambda _: None)
    for name in [n for n in os.environ if n.startswith("MRB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MRB_DEMO_DATA", str(tmp_path / "demo"))
    monkeypatch.setenv("MRB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def run(path: Path) -> tuple[str, int]:
        notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
        outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
        figures = sum("image/png" in o.get("data", {}) for o in outputs)
        return "".join(o.text for o in outputs if o.output_type == "stream"), figures

    return run


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem != "lst_results"], ids=lambda p: p.stem)
def test_notebook_runs(path: Path, run_notebook: Any, tmp_path: Path) -> None:
    _, figures = run_notebook(path)
    assert figures == FIGURES[path.stem]
    assert {p.name for p in tmp_path.iterdir()} <= {"demo", "output"}


def test_results_of_a_new_run_and_of_given_runs(
    run_notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "jupyter_notebook" / "lst_results.ipynb"
    text, figures = run_notebook(path)
    assert figures == FIGURES[path.stem] and "stage 12 of 12" in text
    runs = [tmp_path / "output" / "tiny_run", tmp_path / "copy"]
    shutil.copytree(*runs)
    monkeypatch.setenv("MRB_RUN", os.pathsep.join(map(str, runs)))
    text, figures = run_notebook(path)
    assert figures == FIGURES[path.stem] + 4 and "stage" not in text
    assert [line.split()[0] for line in text.splitlines() if line.startswith(("tiny_run ", "copy "))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_short_and_stored_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in code)
    assert len(code) <= 12
    lines = [[line for line in c["source"] if not line.startswith(("import", "from"))] for c in code]
    assert max(len(some) for some in lines) <= 25
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"][0].startswith("# ")


def test_the_page_of_the_notebooks_lists_all() -> None:
    text = (ROOT / "docs" / "notebooks.md").read_text()
    assert all(f"../jupyter_notebook/{path.name}" in text for path in NOTEBOOKS)
    assert "docs/notebooks.md" in (ROOT / "README.md").read_text()
