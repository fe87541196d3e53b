"""Images and files of figures; import of matplotlib; colours of labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from maskrcnn_benchmark.utils.errors import WriteError
from maskrcnn_benchmark.visualize.colors import label_color, text_color
from maskrcnn_benchmark.visualize.figure import save_figure, to_image
from maskrcnn_benchmark.visualize.line_chart import LineChart, plot_lines

CHART = LineChart("t", "x", "y", ["0", "1"], {"a": [0.1, 0.2]})


def test_image_and_file_show_the_same_and_are_reproducible(tmp_path: Path) -> None:
    image = to_image(plot_lines([CHART]))
    for name in ("first", "second"):
        save_figure(plot_lines([CHART]), tmp_path / f"{name}.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as stored:
        assert stored.convert("RGB").tobytes() == image.tobytes() and image.mode == "RGB"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.png", "second.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chart.png"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(WriteError, match="No space left"):
        save_figure(plot_lines([CHART]), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_matplotlib_is_imported_at_first_use_and_pyplot_never() -> None:
    code = (
        "import sys\n"
        "from maskrcnn_benchmark.engine.run_chart import plot_run\n"
        "from maskrcnn_benchmark.visualize import bar_chart, class_chart, line_chart\n"
        "assert 'matplotlib' not in sys.modules\n"
        "line_chart.plot_lines([])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_label_colours_differ_and_text_contrasts() -> None:
    assert len({label_color(i) for i in range(200)}) == 200
    assert text_color((255, 255, 0)) == (0, 0, 0)
    assert text_color((0, 0, 120)) == (255, 255, 255)
