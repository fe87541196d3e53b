"""subset_annotations.py and plot_run.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets.annotations import first_images
from maskrcnn_benchmark.engine.run_chart import plot_run
from maskrcnn_benchmark.utils.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
ANNOTATIONS = {
    "images": [{"id": i} for i in (7, 3, 5, 1)],
    "annotations": [{"id": i, "image_id": image} for i, image in enumerate((7, 3, 3, 5))],
    "categories": [{"id": 1}],
}


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_first_images_with_objects() -> None:
    kept = first_images(ANNOTATIONS, 2)
    assert [image["id"] for image in kept["images"]] == [3, 5]  # 1 has no object
    assert [entry["id"] for entry in kept["annotations"]] == [1, 2, 3]
    assert kept["categories"] == ANNOTATIONS["categories"] and len(ANNOTATIONS["images"]) == 4


@pytest.mark.parametrize("count", [0, 4, -1])
def test_impossible_counts(count: int) -> None:
    with pytest.raises(DataError, match="3 hold objects"):
        first_images(ANNOTATIONS, count)


def test_file_without_images() -> None:
    with pytest.raises(DataError, match="no 'images'"):
        first_images({"annotations": []}, 1)


def test_subset_tool(tmp_path: Path) -> None:
    source, target = tmp_path / "all.json", tmp_path / "some.json"
    source.write_text(json.dumps(ANNOTATIONS))
    done = _run("tools/subset_annotations.py", str(source), "--pictures", "1", "--out", str(target))
    assert done.returncode == 0 and "1 images, 2 objects" in done.stdout
    assert [image["id"] for image in json.loads(target.read_text())["images"]] == [3]
    failed = _run("tools/subset_annotations.py", str(source), "--pictures", "9", "--out", str(target))
    assert failed.returncode == 2 and "3 hold objects" in failed.stderr


def _write_run(folder: Path, tests: int) -> None:
    rows = [{"kind": "train", "iteration": i, "loss": 2.0 / i, "loss_mask": None} for i in range(1, 60)]
    rows += [{"kind": "evaluation", "iteration": 20 * i, "val/bbox/AP": 0.1 * i} for i in range(1, tests + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_curves_of_a_run(tmp_path: Path) -> None:
    _write_run(tmp_path, tests=0)
    (losses,) = plot_run(tmp_path).axes
    assert [line.get_label() for line in losses.lines] == ["sum", "mask"]
    assert len(losses.lines[0].get_xdata()) == 20 and losses.get_xlabel() == "iteration"
    _write_run(tmp_path, tests=3)
    assert [axes.get_ylabel() for axes in plot_run(tmp_path).axes] == ["loss (mean)", "AP (0 to 1)"]
    done = _run("tools/plot_run.py", str(tmp_path), "--out", str(tmp_path / "curves.png"))
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "curves.png").width > 1600


def test_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training record"):
        plot_run(tmp_path)
